from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench.free_ports import free_port
from gateway.__main__ import main
from gateway.cli.admin_client import AdminClient, AdminUnavailable, refusals_in_one_line
from gateway.core.address import Address
from gateway.core.errors import FieldInvalid, GatewayError, StoreUnavailable, UrlUnknown
from tests.whole_gateway import configuration, settings_of


@pytest.mark.parametrize(
    ("admin", "why"),
    [
        ({"listen": "127.0.0.1:9090"}, "Set admin.token"),
        ({"listen": "127.0.0.1:9090", "token": ""}, "Set admin.token"),
        ({"listen": "127.0.0.1:0", "token": "t"}, "Give it a port of its own"),
    ],
)
def test_a_gateway_that_cannot_be_asked_is_told_apart_before_anything_is_sent(admin: dict[str, str], why: str) -> None:
    settings = settings_of(configuration("http://127.0.0.1:1/v1", admin=admin))
    with pytest.raises(AdminUnavailable, match=why):
        AdminClient.for_settings(settings)


def test_where_no_gateway_listens_the_error_names_the_address() -> None:
    port = free_port()
    with pytest.raises(AdminUnavailable, match=rf"No gateway answers at http://127\.0\.0\.1:{port}/admin/v1/usage"):
        AdminClient(Address("0.0.0.0", port), "t").get("usage", {})


@contextmanager
def other_program(status: int, body: bytes) -> Iterator[Address]:
    """It answers every request like this."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_said: object) -> None:
            """The test's output stays its own."""

    server = HTTPServer(("127.0.0.1", 0), Answering)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield Address("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.mark.parametrize("status", [400, 404, 500])
@pytest.mark.parametrize("body", [b'{"detail":"Not Found"}', b'{"error":"no"}', b'{"error":{"message":5}}', b"{}"])
def test_another_program_at_the_address_is_said_to_be_none_of_ours(status: int, body: bytes) -> None:
    with (
        other_program(status, body) as address,
        pytest.raises(AdminUnavailable, match=f"answers {status}, and not as a gateway does"),
    ):
        AdminClient(address, "t").get("usage", {})


@pytest.mark.parametrize("body", [b"[]", b"5", b"404 page not found", b"\xff"])
def test_what_is_no_json_object_is_no_answer_of_a_gateway(body: bytes) -> None:
    with other_program(200, body) as address, pytest.raises(AdminUnavailable, match="No gateway answers at"):
        AdminClient(address, "t").get("usage", {})


@pytest.mark.parametrize(
    ("refusal", "ends"),
    [
        (FieldInvalid("It is odd."), click.UsageError),
        (UrlUnknown("It is odd."), click.ClickException),
        (StoreUnavailable("It is odd."), click.ClickException),
        (AdminUnavailable("It is odd."), click.ClickException),
    ],
)
def test_a_refusal_ends_the_command_with_what_it_says(
    refusal: GatewayError | AdminUnavailable, ends: type[click.ClickException]
) -> None:
    with pytest.raises(click.ClickException) as ended, refusals_in_one_line():
        raise refusal
    assert (type(ended.value), ended.value.message) == (ends, "It is odd.")


@pytest.mark.parametrize("command", ["upstreams", "top", "reload"])
def test_no_command_ends_in_a_traceback_where_the_gateway_refuses(command: str, tmp_path: Path) -> None:
    refusal = json.dumps({"error": {"message": "It is odd."}}).encode()
    with other_program(400, refusal) as address:
        file = tmp_path / "gateway.yaml"
        file.write_text(
            json.dumps(configuration("http://127.0.0.1:1/v1", admin={"listen": str(address), "token": "t"}))
        )
        ended = CliRunner().invoke(main, [command, "-c", str(file)])
    assert ended.exit_code in (1, 2)
    assert "Error: " in ended.output
