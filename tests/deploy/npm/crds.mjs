// Validates the custom resources on standard input (a JSON array) and prints one line for each.

import { readFileSync } from "node:fs";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const models = { HTTPRoute, PrometheusRule, ServiceMonitor };

for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const Model = models[resource.kind];
  if (!Model) throw new Error(`no schema is known for ${resource.kind}`);
  const { apiVersion, kind } = new Model({});
  if (resource.apiVersion !== apiVersion) throw new Error(`${kind} is ${apiVersion}, not ${resource.apiVersion}`);
  new Model(resource).validate();
  console.log(`${kind} ${resource.metadata.name} is valid`);
}
