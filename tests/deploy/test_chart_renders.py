"""The Helm chart: what it renders is what Kubernetes takes and what the gateway loads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from deploy import chart_readme, values_schema
from tests.deploy.load import configuration
from tests.deploy.processes import NPM, ROOT, Json, gateway, gateway_command, outcome, run, running, tool

CHART = ROOT / "helm" / "inducta-gateway"
KUBERNETES = "1.33.0"
OLDEST = "1.27.0"
CUSTOM = {"HTTPRoute", "PrometheusRule", "ServiceMonitor"}

# Values beside examples/try.yaml, each a way to install the chart.
MATRIX: dict[str, tuple[str, ...]] = {
    "try": (),
    "redis_on_a_volume": ("redis.bundled.storage=5Gi",),
    "autoscaled": ("autoscaling.enabled=true", "autoscaling.targetInFlight=200"),
    "journal_that_outlives_pods": (
        "journalVolume.emptyDir=null",
        "journalVolume.persistentVolumeClaim.claimName=gateway-journal",
    ),
    "single": ("replicaCount=1", "podDisruptionBudget.enabled=false", "preStopSeconds=0"),
    "pinned": (f"image.digest=sha256:{'a' * 64}", "imagePullSecrets[0].name=pull"),
    "ingress": ("ingress.enabled=true", "ingress.hosts={llm.example.com,llm.example.org}"),
    "route": (
        "httpRoute.enabled=true",
        "httpRoute.parentRefs[0].name=public",
        "httpRoute.hostnames[0]=llm.example.com",
    ),
    "fenced": (
        "networkPolicy.enabled=true",
        "networkPolicy.clients[0].podSelector.matchLabels.app=search",
        "networkPolicy.egress[0].ports[0].port=443",
    ),
    "watched": ("serviceMonitor.enabled=true", "prometheusRule.enabled=true", "dashboards.enabled=true"),
    "placed": (
        "nodeSelector.disk=ssd",
        "tolerations[0].operator=Exists",
        "priorityClassName=high",
        "affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=zone",
        "topologySpreadConstraints[0].maxSkew=1",
        "topologySpreadConstraints[0].topologyKey=zone",
        "topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
    ),
    "secrets_of_ones_own": (
        "existingSecret=keys",
        "redis.bundled.enabled=false",
        "redis.passwordSecret.name=redis",
        "serviceAccount.create=false",
        "extraVolumes[0].name=more",
        "extraVolumes[0].secret.secretName=more",
        "extraVolumeMounts[0].name=more",
        "extraVolumeMounts[0].mountPath=/run/secrets",
    ),
    "on_other_ports": ("config.listen=0.0.0.0:8000", "config.admin.listen=[::]:9999"),
    "configured_elsewhere": ("existingConfigMap=my-gateway",),
    "with_more_of_everything": (
        "commonLabels.owner=platform",
        "extraEnv[0].name=TZ",
        "extraEnv[0].value=UTC",
        "extraEnvFrom[0].secretRef.name=more-keys",
        "extraInitContainers[0].name=wait",
        "extraInitContainers[0].image=busybox:1.37",
        "extraContainers[0].name=tunnel",
        "extraContainers[0].image=busybox:1.37",
        "extraObjects[0].apiVersion=v1",
        "extraObjects[0].kind=ConfigMap",
        "extraObjects[0].metadata.name=more",
    ),
    "exposed_by_a_load_balancer": (
        "service.type=LoadBalancer",
        "service.nodePort=30080",
        "service.loadBalancerClass=example.com/internal",
        "service.loadBalancerSourceRanges={10.0.0.0/8}",
        "service.externalTrafficPolicy=Local",
    ),
    "watched_from_elsewhere": (
        "serviceMonitor.enabled=true",
        "serviceMonitor.namespace=monitoring",
        "serviceMonitor.scrapeTimeout=10s",
        "serviceMonitor.metricRelabelings[0].action=drop",
        "serviceMonitor.metricRelabelings[0].regex=go_.*",
        "serviceMonitor.metricRelabelings[0].sourceLabels={__name__}",
    ),
    "patient_probes": ("startupProbe.failureThreshold=120", "livenessProbe.timeoutSeconds=10"),
    "without_security_contexts": (
        "podSecurityContext=null",
        "securityContext=null",
        "redis.bundled.podSecurityContext=null",
        "redis.bundled.securityContext=null",
    ),
}


def template_command(example: str = "try") -> tuple[str, ...]:
    values = CHART / "examples" / f"{example}.yaml"
    return (tool("helm"), "template", "gw", str(CHART), "--kube-version", KUBERNETES, "-f", str(values))


async def template(*sets: str, example: str = "try") -> str:
    return await run(*template_command(example), *(flag for each in sets for flag in ("--set", each)))


async def rendered(*sets: str, example: str = "try") -> list[Json]:
    return [each for each in yaml.safe_load_all(await template(*sets, example=example)) if each]


def one(resources: list[Json], kind: str, name: str = "gateway") -> Json:
    (found,) = [each for each in resources if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def container(resources: list[Json]) -> Json:
    containers: list[Json] = one(resources, "Deployment")["spec"]["template"]["spec"]["containers"]
    return containers[0]


async def valid(resources: list[Json], folder: Path, kubernetes: str = KUBERNETES) -> None:
    """Every resource against Kubernetes' own schemas, the custom ones against theirs."""
    plain = folder / "plain.yaml"
    plain.write_text(yaml.safe_dump_all([each for each in resources if each["kind"] not in CUSTOM]))
    version = kubernetes.rpartition(".")[0]
    await run(tool("kubernetes-validate"), "--strict", "--quiet", "-k", version, str(plain))
    custom = [each for each in resources if each["kind"] in CUSTOM]
    if custom:
        await run(tool("node"), str(NPM / "crds.mjs"), given=json.dumps(custom))


def test_the_values_schema_is_the_gateways_own() -> None:
    assert values_schema.SHIPPED.read_text(encoding="utf-8") == values_schema.text(), "run `make generate`"


async def test_the_chart_has_nothing_to_be_linted() -> None:
    for example in ("try", "production"):
        await run(tool("helm"), "lint", "--strict", str(CHART), "-f", str(CHART / "examples" / f"{example}.yaml"))


@pytest.mark.parametrize("sets", MATRIX.values(), ids=MATRIX.keys())
async def test_kubernetes_takes_what_is_rendered(sets: tuple[str, ...], tmp_path: Path) -> None:
    await valid(await rendered(*sets), tmp_path)


@pytest.mark.parametrize("kubernetes", [OLDEST, KUBERNETES])
async def test_kubernetes_takes_the_production_example(kubernetes: str, tmp_path: Path) -> None:
    resources = await rendered(example="production")
    await valid(resources, tmp_path, kubernetes)
    assert {"HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", *CUSTOM - {"HTTPRoute"}} <= {
        each["kind"] for each in resources
    }


@pytest.mark.parametrize("example", ["try", "production"])
async def test_the_gateway_loads_the_rendered_configuration(example: str, tmp_path: Path) -> None:
    resources = await rendered(example=example)
    (config,) = [each for each in resources if each["kind"] == "ConfigMap" and "gateway.yaml" in each["data"]]
    file = tmp_path / "gateway.yaml"
    file.write_text(config["data"]["gateway.yaml"], encoding="utf-8")
    secrets = dict.fromkeys(("DEMO_KEY", "SEARCH_PROD_KEY", "UPSTREAM_API_KEY"), "gw_" + "k" * 43)
    url = next(each["value"] for each in container_env(resources) if each["name"] == "REDIS_URL")
    env = {**secrets, "REDIS_URL": url.replace("$(REDIS_PASSWORD)", "secret")}
    await run(gateway_command(), "check", "-c", str(file), env=env)


def container_env(resources: list[Json]) -> list[Json]:
    deployments = [each for each in resources if each["kind"] == "Deployment"]
    containers = [each for d in deployments for each in d["spec"]["template"]["spec"]["containers"]]
    return [variable for each in containers for variable in each.get("env", ())]


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        ("replicas=3", "'replicas' not allowed"),
        ("config.drain.delya=3s", "'delya' not allowed"),
        ("config.drain.delay=soon", "/config/drain/delay"),
        ("config.teams.demo.limits[0].requests=many", "/config/teams/demo/limits/0/requests"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("config.upstreams=null", "/config/upstreams"),
    ],
)
async def test_a_wrong_value_is_refused_by_its_place(sets: str, complaint: str) -> None:
    code, printed = await outcome(*template_command(), "--set", sets)
    assert code != 0
    assert complaint in printed


async def test_a_pod_has_as_long_to_go_as_its_drain_needs() -> None:
    sets = ("preStopSeconds=3", "config.drain.delay=1500ms", "config.drain.timeout=2m")
    pod = one(await rendered(*sets), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 3 + 2 + 120 + 10


async def test_ports_and_probes_follow_the_configuration() -> None:
    resources = await rendered("config.listen=0.0.0.0:8000", "config.admin.listen=[::]:9999")
    gateway = container(resources)
    assert {each["name"]: each["containerPort"] for each in gateway["ports"]} == {"http": 8000, "admin": 9999}
    assert gateway["readinessProbe"]["httpGet"]["port"] == "admin"
    code, printed = await outcome(*template_command(), "--set", "config.admin.listen=0.0.0.0:0")
    assert code != 0
    assert "Kubernetes needs a port of its own" in printed


async def test_a_configuration_of_ones_own_is_mounted_and_none_is_made() -> None:
    command = (tool("helm"), "template", "gw", str(CHART), "--kube-version", KUBERNETES)
    manifests = await run(*command, "--set", "existingConfigMap=mine")
    resources = [each for each in yaml.safe_load_all(manifests) if each]
    (deployment,) = [each for each in resources if each["kind"] == "Deployment"]
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": "mine"}} in volumes
    assert not [each for each in resources if each["kind"] == "ConfigMap"]


async def test_common_labels_are_on_everything_and_in_no_selector() -> None:
    resources = await rendered("commonLabels.owner=platform", "serviceMonitor.enabled=true", "dashboards.enabled=true")
    assert [each["kind"] for each in resources if each["metadata"]["labels"].get("owner") != "platform"] == []
    assert "owner" not in json.dumps([each["spec"].get("selector") for each in resources if "spec" in each])


async def test_more_objects_may_be_templates() -> None:
    text = 'apiVersion: v1\nkind: Secret\nmetadata: {name: "{{ .Release.Name }}-more"}'
    values = yaml.safe_dump({"extraObjects": [text]})
    manifests = await run(*template_command(), "-f", "-", given=values)
    assert one([each for each in yaml.safe_load_all(manifests) if each], "Secret", "gw-more")


async def test_every_host_leads_to_the_gateway() -> None:
    ingress = one(await rendered("ingress.enabled=true", "ingress.hosts={a.example.com,b.example.com}"), "Ingress")
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == ["a.example.com", "b.example.com"]
    assert {path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]} == {"/"}


def test_the_readme_of_the_chart_has_every_value() -> None:
    assert chart_readme.README.read_text(encoding="utf-8") == chart_readme.text(), "run `make generate`"


async def test_a_changed_configuration_rolls_the_pods() -> None:
    def checksum(resources: list[Json]) -> Any:
        return one(resources, "Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    before, after = await rendered(), await rendered("config.timezone=Europe/Zurich")
    assert checksum(before) != checksum(after)
    assert checksum(before) == checksum(await rendered("replicaCount=5"))
    quiet = one(await rendered("rolloutOnConfigChange=false"), "Deployment")
    assert "checksum/config" not in quiet["spec"]["template"]["metadata"]["annotations"]


async def test_nothing_that_is_exposed_leads_to_the_admin_listener() -> None:
    exposed = ("service.type=LoadBalancer", "ingress.enabled=true", "ingress.hosts={llm.example.com}",
               "httpRoute.enabled=true", "httpRoute.parentRefs[0].name=public")  # fmt: skip
    resources = await rendered(*exposed)
    assert [port["targetPort"] for port in one(resources, "Service")["spec"]["ports"]] == ["http"]
    assert one(resources, "Service", "gateway-admin")["spec"]["type"] == "ClusterIP"
    exposing = json.dumps([one(resources, "Ingress"), one(resources, "HTTPRoute")])
    assert "admin" not in exposing


async def test_every_container_can_write_nowhere_and_become_nobody_else() -> None:
    resources = await rendered()
    pods = [each["spec"]["template"] for each in resources if each["kind"] in {"Deployment", "StatefulSet"}]
    pods += [each for each in resources if each["kind"] == "Pod"]
    assert len(pods) == len(("gateway", "redis", "demo upstream", "test"))
    for pod in pods:
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        for each in pod["spec"]["containers"]:
            security = each["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}


async def test_on_openshift_no_pod_names_a_user_or_a_group() -> None:
    manifests = await run(*template_command(), "-f", str(CHART / "examples" / "openshift.yaml"))
    assert manifests.count("runAsNonRoot: true") == len(("gateway", "redis", "demo upstream", "test"))
    assert not any(fixed in manifests for fixed in ("runAsUser", "runAsGroup", "fsGroup"))


async def test_a_pod_runs_as_the_user_of_the_values() -> None:
    resources = await rendered("podSecurityContext.runAsUser=4711", "securityContext.readOnlyRootFilesystem=false")
    pod = one(resources, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 4711
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is False
    redis = one(resources, "StatefulSet", "gateway-redis")["spec"]["template"]["spec"]
    assert redis["securityContext"]["runAsUser"] == 999


async def test_the_charts_own_test_tells_a_gateway_that_answers_from_one_that_does_not(tmp_path: Path) -> None:
    pod = one(await rendered(), "Pod", "gateway-test")
    interpreter, flag = pod["spec"]["containers"][0]["command"]
    assert (interpreter, flag) == ("python", "-c")
    program = pod["spec"]["containers"][0]["args"][0]
    config = configuration("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1")
    async with gateway(config, tmp_path) as (_, data, admin):
        await run(sys.executable, flag, program, f"http://{admin}", f"http://{data}")
    code, _ = await outcome(sys.executable, flag, program, f"http://{admin}", f"http://{data}")
    assert code != 0


async def test_no_secret_stands_in_the_configuration() -> None:
    text = await template("secret.DEMO_KEY=gw_very-secret")
    config = next(each for each in yaml.safe_load_all(text) if each and each["kind"] == "ConfigMap")
    assert "gw_very-secret" not in json.dumps(config)
    assert container(await rendered())["envFrom"] == [{"secretRef": {"name": "gateway"}}]


async def test_large_numbers_stay_whole() -> None:
    resources = await rendered("config.models.openai/gpt-oss-120b.context_window=50000000")
    assert "context_window: 50000000" in one(resources, "ConfigMap")["data"]["gateway.yaml"]


async def test_the_rules_link_to_where_the_runbooks_are_served() -> None:
    where = "https://docs.example.com/gateway/runbooks"
    rule = one(await rendered("prometheusRule.enabled=true", f"prometheusRule.runbooks={where}"), "PrometheusRule")
    alerts = [each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each]
    assert alerts
    assert {each["annotations"]["runbook_url"].partition("#")[0] for each in alerts} == {where}


async def test_no_password_is_an_argument() -> None:
    resources = await rendered()
    pods = [each["spec"]["template"]["spec"] for each in resources if each["kind"] in {"Deployment", "StatefulSet"}]
    arguments = [each.get("command", []) + each.get("args", []) for pod in pods for each in pod["containers"]]
    assert "$(REDIS_PASSWORD)" not in json.dumps(arguments)


async def test_the_bundled_redis_asks_for_its_password() -> None:
    (started,) = one(await rendered(), "StatefulSet", "gateway-redis")["spec"]["template"]["spec"]["containers"]
    # The path of a socket has a hundred characters at most.
    with TemporaryDirectory() as folder:
        script = started["args"][0].replace("--dir /data", f"--dir {folder} --port 0 --unixsocket {folder}/redis")
        async with running(*started["command"], script, env={"REDIS_PASSWORD": "of-this-test"}) as server:
            await server.line(lambda line: "eady to accept connections" in line)
            ask = ("redis-cli", "-s", f"{folder}/redis", "ping")
            assert "NOAUTH" in (await outcome(*ask))[1]
            assert "PONG" in (await outcome(*ask, env={"REDISCLI_AUTH": "of-this-test"}))[1]


async def test_policies_guard_the_admin_listener_and_redis_unless_they_are_switched_off() -> None:
    resources = await rendered()
    assert one(resources, "NetworkPolicy")["spec"]["ingress"][1]["from"]
    (rule,) = one(resources, "NetworkPolicy", "gateway-redis")["spec"]["ingress"]
    assert rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert not [each for each in await rendered("networkPolicy.enabled=false") if each["kind"] == "NetworkPolicy"]
