from __future__ import annotations

import pytest

from gateway.telemetry.trace_options import Sampling, TraceOptions, read_trace_options

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example:4318/"}


def options(**variables: str) -> TraceOptions:
    found, problems = read_trace_options({**COLLECTOR, **variables})
    assert problems == []
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, "https://collector.example:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://other/x?y=z"}, "http://other/x?y=z"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
    ],
)
def test_the_path_follows_the_general_endpoint_alone(variables: dict[str, str], endpoint: str) -> None:
    assert options(**variables).endpoint == endpoint


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
    ],
)
def test_nothing_is_exported_that_is_not_asked_for(variables: dict[str, str]) -> None:
    assert read_trace_options({**COLLECTOR, **variables}) == (None, [])


@pytest.mark.parametrize(
    ("sampler", "share", "sampling"),
    [
        ("", "", Sampling()),
        ("always_on", "0.1", Sampling(1.0, follows_parent=False)),
        ("always_off", "", Sampling(0.0, follows_parent=False)),
        ("traceidratio", "0.25", Sampling(0.25, follows_parent=False)),
        ("parentbased_traceidratio", "0.25", Sampling(0.25)),
        ("parentbased_traceidratio", "", Sampling(1.0)),
    ],
)
def test_a_sampler_is_a_share_and_whom_it_follows(sampler: str, share: str, sampling: Sampling) -> None:
    assert options(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=share).sampling == sampling


def test_headers_and_attributes_are_lists_of_pairs() -> None:
    found = options(
        OTEL_EXPORTER_OTLP_HEADERS="api-key=a%20b, x = y=z ,",
        OTEL_RESOURCE_ATTRIBUTES="service.name=from-attributes,zone=a",
        OTEL_EXPORTER_OTLP_TIMEOUT="2500",
    )
    assert found.headers == (("api-key", "a b"), ("x", "y=z"))
    assert dict(found.resource) == {"service.name": "from-attributes", "zone": "a"}
    assert found.timeout_s == 2.5


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "OTEL_TRACES_SAMPLER"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "many"}, "OTEL_BSP_MAX_QUEUE_SIZE"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "-5"}, "OTEL_BSP_SCHEDULE_DELAY"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "inf"}, "OTEL_BSP_MAX_QUEUE_SIZE"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "nan"}, "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector/a path"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "s3cr3t"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "x=1%0d%0ay:2"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "content-length=7"}, "OTEL_EXPORTER_OTLP_HEADERS"),
    ],
)
def test_what_cannot_be_used_is_named_without_its_value(variables: dict[str, str], named: str) -> None:
    _, (problem,) = read_trace_options({**COLLECTOR, **variables})
    assert problem.startswith(named)
    assert not any(value in problem for value in variables.values() if value != "grpc")
