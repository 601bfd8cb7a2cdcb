"""The Helm chart: what it renders is what Kubernetes takes and what the gateway loads."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from deploy import chart_readme, values_schema
from gateway.settings.models import Settings
from gateway.store.journal import LARGEST_BYTES
from tests.deploy.load import configuration
from tests.deploy.processes import NPM, ROOT, TOOLS, Json, gateway, gateway_command, outcome, run, running, tool

CHART = ROOT / "helm" / "inducta-gateway"
KUBERNETES = "1.33.0"
OLDEST = "1.27.0"
CUSTOM = {"HTTPRoute", "PrometheusRule", "ServiceMonitor"}

# Values beside examples/try.yaml, each a way to install the chart. They name what most installations change, alone and
# together; together they set nearly every value.
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
    "by_another_name": ("nameOverride=llm", "fullnameOverride=null"),
    "from_a_registry_with_a_port": (
        "image.repository=registry.example.com:5000/llm/gateway",
        "image.tag=1.2.3-rc.1",
        "image.pullPolicy=Always",
    ),
    "reloading_by_itself": ("rolloutOnConfigChange=false",),
    "redis_over_tls": (
        "redis.bundled.enabled=false",
        "redis.url=rediss://gateway:$(REDIS_PASSWORD)@redis.example.com:6380/0",
        "redis.passwordSecret.name=redis",
        "redis.passwordSecret.key=redis-password",
    ),
    "redis_with_sentinels": (
        "redis.bundled.enabled=false",
        r"redis.url=redis+sentinel://one:26379\,two:26379\,three:26379/main",
    ),
    "redis_without_a_limit_of_memory": ("redis.bundled.resources=null", "redis.bundled.image=valkey/valkey:8"),
    "of_a_real_model_server": (
        "demoUpstream.enabled=false",
        "config.upstreams.demo.base_url=https://host.example/v1",
        "config.upstreams.demo.api_key=${UPSTREAM_API_KEY}",
        "existingSecret=keys",
    ),
    "with_a_worker_for_each_core": (
        "config.workers=auto",
        "journalVolume.emptyDir.sizeLimit=65Gi",
        "tmpVolume.emptyDir.sizeLimit=20G",
    ),
    "with_a_password_of_ones_own_for_the_bundled_redis": ("redis.passwordSecret.name=mine",),
    "with_several_workers": ("config.workers=4", "resources.requests.cpu=4", "resources.limits.memory=2Gi"),
    "without_requests_and_limits": ("resources=null",),
    "with_room_for_large_forms": (
        "config.max_body=512MiB",
        "config.max_body_memory=4GiB",
        "tmpVolume.emptyDir.sizeLimit=8Gi",
        "tmpVolume.emptyDir.medium=Memory",
    ),
    "stopped_before_it_is_replaced": ("updateStrategy.type=Recreate", "updateStrategy.rollingUpdate=null"),
    "with_a_long_drain": ("config.drain.timeout=1h", "config.drain.delay=30s", "preStopSeconds=15"),
    "disrupted_by_shares": ("podDisruptionBudget.maxUnavailable=25%", "replicaCount=8"),
    "autoscaled_by_processor_alone": ("autoscaling.enabled=true", "autoscaling.maxReplicas=50"),
    "annotated_and_labelled": (
        r"podAnnotations.example\.com/scrape=yes",
        "podLabels.tier=edge",
        "serviceAccount.annotations.role=gateway",
        "service.annotations.scheme=internal",
        "service.labels.tier=edge",
        "adminService.annotations.scheme=internal",
    ),
    "of_an_account_that_exists": ("serviceAccount.create=false", "serviceAccount.name=llm"),
    "on_ports_of_the_nodes": ("service.type=NodePort", "service.nodePort=30443", "adminService.port=9999"),
    "ingress_of_another_class_with_tls": (
        "ingress.enabled=true",
        "ingress.className=traefik",
        "ingress.annotations=null",
        "ingress.hosts={llm.example.com}",
        "ingress.tls[0].secretName=llm",
        "ingress.tls[0].hosts={llm.example.com}",
        "ingress.paths={/v1,/v1beta}",
    ),
    "route_of_some_paths": (
        "httpRoute.enabled=true",
        "httpRoute.parentRefs[0].name=public",
        "httpRoute.parentRefs[0].namespace=infra",
        "httpRoute.paths={/v1,/v1beta}",
    ),
    "without_policies": ("networkPolicy.enabled=false",),
    "watched_with_labels": (
        "serviceMonitor.enabled=true",
        "serviceMonitor.labels.release=prometheus",
        "serviceMonitor.interval=1m",
        "prometheusRule.enabled=true",
        "prometheusRule.labels.release=prometheus",
        "dashboards.enabled=true",
        "dashboards.labels.grafana_dashboard=yes",
    ),
}
WITHOUT_RESTRICTION = {"without_security_contexts", "with_more_of_everything"}
"""These name containers or contexts of the user's own."""

RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
EVERY_VALUE_SET = pytest.mark.parametrize("sets", MATRIX.values(), ids=MATRIX.keys())
SCHEMAS = "lib/python3*/site-packages/kubernetes_validate/kubernetes-json-schema"


def template_command(example: str = "try") -> tuple[str, ...]:
    values = CHART / "examples" / f"{example}.yaml"
    return (tool("helm"), "template", "gw", str(CHART), "--kube-version", KUBERNETES, "-f", str(values))


async def template(*sets: str, example: str = "try", values: tuple[str, ...] = ()) -> str:
    """`values` are more files of the chart's folder."""
    files = [flag for each in values for flag in ("-f", str(CHART / each))]
    return await run(*template_command(example), *files, *(flag for each in sets for flag in ("--set", each)))


async def rendered(*sets: str, example: str = "try") -> list[Json]:
    return [each for each in yaml.safe_load_all(await template(*sets, example=example)) if each]


def one(resources: list[Json], kind: str, name: str = "gateway") -> Json:
    (found,) = [each for each in resources if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def container(resources: list[Json]) -> Json:
    containers: list[Json] = one(resources, "Deployment")["spec"]["template"]["spec"]["containers"]
    return containers[0]


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Kubernetes' own schemas of both versions, for kubeconform's -schema-location.

    The package kubernetes-validate has them, with references and names that only it resolves.
    """
    kept = tmp_path_factory.mktemp("schemas")
    tool("kubernetes-validate")
    for version in (OLDEST, KUBERNETES):
        (shipped,) = (TOOLS / "venv").glob(f"{SCHEMAS}/v{version}-local-strict")
        (kept / f"v{version}").mkdir()
        for schema in shipped.glob("*.json"):
            document = json.loads(
                schema.read_text(encoding="utf-8").replace("/api/_definitions.json#", "_definitions.json#")
            )
            document.pop("$id", None)
            (kept / f"v{version}" / schema.name).write_text(json.dumps(document), encoding="utf-8")
    return f"{kept}/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"


async def valid(resources: list[Json], schemas: str, kubernetes: str = KUBERNETES) -> None:
    """Every resource against Kubernetes' own schemas, the custom ones against theirs."""
    plain = yaml.safe_dump_all([each for each in resources if each["kind"] not in CUSTOM])
    flags = ("-strict", "-kubernetes-version", kubernetes, "-schema-location", schemas)
    await run(tool("kubeconform"), *flags, given=plain)
    custom = [each for each in resources if each["kind"] in CUSTOM]
    if custom:
        await run(tool("node"), str(NPM / "crds.mjs"), given=json.dumps(custom))


async def test_a_resource_that_kubernetes_would_refuse_is_found(schemas: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [], "contaners": []}}
    with pytest.raises(AssertionError, match="contaners"):
        await valid([pod], schemas)


def test_the_values_schema_is_the_gateways_own() -> None:
    assert values_schema.SHIPPED.read_text(encoding="utf-8") == values_schema.text(), "run `make generate`"


async def test_the_chart_has_nothing_to_be_linted() -> None:
    for example in ("try", "production"):
        await run(tool("helm"), "lint", "--strict", str(CHART), "-f", str(CHART / "examples" / f"{example}.yaml"))


@EVERY_VALUE_SET
async def test_kubernetes_takes_what_is_rendered(sets: tuple[str, ...], schemas: str) -> None:
    await valid(await rendered(*sets), schemas)


@EVERY_VALUE_SET
async def test_every_value_set_has_nothing_to_be_linted(sets: tuple[str, ...]) -> None:
    values = ("-f", str(CHART / "examples" / "try.yaml"), *(flag for each in sets for flag in ("--set", each)))
    await run(tool("helm"), "lint", "--strict", "--quiet", "--kube-version", KUBERNETES, str(CHART), *values)


@pytest.mark.parametrize("kubernetes", [OLDEST, KUBERNETES])
async def test_kubernetes_takes_the_production_example(kubernetes: str, schemas: str) -> None:
    resources = await rendered(example="production")
    await valid(resources, schemas, kubernetes)
    assert {"HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", *CUSTOM - {"HTTPRoute"}} <= {
        each["kind"] for each in resources
    }


@pytest.mark.parametrize("example", ["try", "production"])
async def test_the_documentations_commands_find_what_the_examples_make(example: str) -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in await rendered(example=example)}
    assert {("Deployment", "gateway"), ("Service", "gateway")} <= names


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
        ("config.teams.demo.cost_center=4711", "value must be 'text in quotes"),
        ("config.teams.demo.owner=true", "value must be 'text in quotes"),
        ("config.teams.demo.keys[0].name=12", "value must be 'text in quotes"),
        ("config.timezone=12", "/config/timezone"),
        ("config.teams.demo.limits[0].requests=many", "/config/teams/demo/limits/0/requests"),
        ("config.limits[0].requests=5", "at '/config/limits/0': missing property 'per'"),
        ("config.limits[0].per=day", "at '/config/limits/0': 'oneOf' failed"),
        ("config.limits[0].concurrent=5,config.limits[0].per=day", "/config/limits/0/per"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("config.upstreams=null", "/config/upstreams"),
    ],
)
async def test_a_wrong_value_is_refused_by_its_place(sets: str, complaint: str) -> None:
    code, printed = await outcome(*template_command(), "--set", sets)
    assert code != 0
    assert complaint in printed


async def test_a_date_is_text_for_helm_too() -> None:
    dates = ("config.teams.demo.cost_center=2026-11-01", "config.teams.demo.keys[0].expires=2027-01-01")
    team = yaml.safe_load(one(await rendered(*dates), "ConfigMap")["data"]["gateway.yaml"])["teams"]["demo"]
    assert (team["cost_center"], team["keys"][0]["expires"]) == ("2026-11-01", "2027-01-01")


async def test_a_limit_may_name_the_meters_that_it_does_not_have() -> None:
    limit = ("requests=5", "tokens=null", "concurrent=null", "per=minute")
    resources = await rendered(*(f"config.limits[0].{part}" for part in limit), "config.limits[1].concurrent=5")
    config = yaml.safe_load(one(resources, "ConfigMap")["data"]["gateway.yaml"])
    assert [each.get("requests") for each in config["limits"]] == [5, None]


async def test_a_pod_has_as_long_to_go_as_its_drain_needs() -> None:
    sets = ("preStopSeconds=3", "config.drain.delay=1500ms", "config.drain.timeout=2m")
    pod = one(await rendered(*sets), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 3 + 2 + 120 + 10


def size_limits(resources: list[Json]) -> list[str]:
    """Of /tmp and of the journal."""
    volumes = one(resources, "Deployment")["spec"]["template"]["spec"]["volumes"]
    return [each["emptyDir"]["sizeLimit"] for each in volumes if each["name"] in {"tmp", "journal"}]


@pytest.mark.parametrize(
    ("sets", "limits"),
    [
        ((), ["1Gi", "2Gi"]),
        (("config.workers=4",), ["2Gi", "5Gi"]),
        (("config.workers=4", "config.max_body_memory=1_024MiB"), ["5Gi", "5Gi"]),
        (("config.workers=2", "journalVolume.emptyDir.sizeLimit=2049Mi"), ["1Gi", "2049Mi"]),
        (("journalVolume.emptyDir.medium=Memory",), ["1Gi", "2Gi"]),
    ],
)
async def test_volumes_have_room_for_what_every_worker_may_write(sets: tuple[str, ...], limits: list[str]) -> None:
    assert LARGEST_BYTES == 1 << 30, "the journal's bound, which the chart has as 1Gi"
    assert size_limits(await rendered(*sets)) == limits


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        (
            "journalVolume.emptyDir.sizeLimit=1Gi",
            "journalVolume.emptyDir.sizeLimit: 1Gi is too small for config.workers: 1",
        ),
        ("config.workers=4,journalVolume.emptyDir.sizeLimit=4e9", "4e9 is too small for config.workers: 4"),
        ("config.workers=4,journalVolume.emptyDir.sizeLimit=4G", "Each worker takes up to 1Gi of the volume"),
        ("tmpVolume.emptyDir.sizeLimit=100M", "Each worker takes up to 256MiB of the volume"),
        ("config.workers=auto,tmpVolume.emptyDir.sizeLimit=9Gi", "journalVolume.emptyDir.sizeLimit is missing"),
        ("config.workers=auto,journalVolume.emptyDir.sizeLimit=9Gi", "tmpVolume.emptyDir.sizeLimit is missing"),
        ("journalVolume.emptyDir.sizeLimit=much", "much is not a size, such as 2Gi"),
    ],
)
async def test_a_volume_that_workers_may_overfill_is_refused(sets: str, complaint: str) -> None:
    code, printed = await outcome(*template_command(), "--set", sets)
    assert code != 0
    assert complaint in printed


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


@pytest.mark.parametrize("sets", [sets for name, sets in MATRIX.items() if name not in WITHOUT_RESTRICTION])
async def test_openshift_admits_every_pod_as_it_is(sets: tuple[str, ...]) -> None:
    """By restricted-v2, which assigns the user and the groups, and has nothing else to add or to refuse."""
    manifests = await template(*sets, values=("examples/openshift.yaml",))
    for pod in pods([each for each in yaml.safe_load_all(manifests) if each]):
        assert list(not_admitted_by_restricted_v2(pod)) == []


async def test_without_the_example_openshift_refuses_the_user_and_the_groups() -> None:
    refused = [list(not_admitted_by_restricted_v2(pod)) for pod in pods(await rendered())]
    assert refused
    assert all(each == ["names a user or a group"] for each in refused)


def pods(resources: list[Json]) -> list[Json]:
    """The specification of each pod that these make."""
    kinds = {"Deployment", "StatefulSet"}
    made = [each["spec"]["template"]["spec"] for each in resources if each["kind"] in kinds]
    return made + [each["spec"] for each in resources if each["kind"] == "Pod"]


def not_admitted_by_restricted_v2(pod: Json) -> Iterator[str]:
    """What OpenShift's SecurityContextConstraints `restricted-v2` would refuse or change, but for what it assigns.

    Source: bindata/bootkube/scc-manifests/0000_20_kube-apiserver-operator_00_scc-restricted-v2.yaml of
    openshift/cluster-kube-apiserver-operator.
    """
    whole = pod.get("securityContext", {})
    if whole.keys() & {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups", "seLinuxOptions", "sysctls"}:
        yield "names a user or a group"
    if whole.get("seccompProfile") != {"type": "RuntimeDefault"} or whole.get("runAsNonRoot") is not True:
        yield "has no seccomp profile, or may run as root"
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "is in a namespace of the host"
    allowed = {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    if {kind for volume in pod.get("volumes", ()) for kind in volume if kind != "name"} - allowed:
        yield "has a volume of another kind"
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        if container["securityContext"] != RESTRICTED or any(p.get("hostPort") for p in container.get("ports", ())):
            yield f"{container['name']} may do more than a container that is restricted"


async def test_every_pod_pulls_its_image_with_the_same_secrets() -> None:
    resources = await rendered("imagePullSecrets[0].name=pull")
    ours = [pod for pod in pods(resources) if "gateway" in pod["containers"][0]["image"]]
    assert len(ours) == len(("gateway", "demo upstream", "test"))
    assert all(pod["imagePullSecrets"] == [{"name": "pull"}] for pod in ours)


async def test_what_a_request_may_hold_fits_into_the_pod_and_through_the_ingress() -> None:
    sizes = {name: _bytes(Settings.model_fields[name].default) for name in ("max_body", "max_body_memory")}
    resources = await rendered("ingress.enabled=true")
    (tmp,) = [
        each for each in one(resources, "Deployment")["spec"]["template"]["spec"]["volumes"] if each["name"] == "tmp"
    ]
    assert _bytes(tmp["emptyDir"]["sizeLimit"]) >= 2 * sizes["max_body_memory"]
    annotations = one(resources, "Ingress")["metadata"]["annotations"]
    assert _bytes(annotations["nginx.ingress.kubernetes.io/proxy-body-size"]) >= sizes["max_body"]


def _bytes(size: str) -> int:
    """A size in the units of nginx, Kubernetes and the gateway that are used here."""
    (found,) = re.findall(r"^(\d+)(m|Mi|MiB|Gi)$", size)
    return int(found[0]) * (2**30 if found[1] == "Gi" else 2**20)


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


async def test_without_an_address_the_rules_name_the_file_of_the_runbooks() -> None:
    text = await template("prometheusRule.enabled=true")
    assert set(re.findall(r"runbook_url: ([^#\n]+)", text)) == {"docs/runbooks.md"}


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
