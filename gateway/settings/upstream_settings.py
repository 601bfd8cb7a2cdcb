"""The settings of an upstream: where it is, how the gateway proves itself, how long it waits."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict

from gateway.core.endpoints import Dialect
from gateway.settings.base_section import REQUIRED, BaseSection, setting
from gateway.settings.presets import PRESETS
from gateway.settings.types import (
    BasePath,
    CheckPath,
    Count,
    EndpointPattern,
    HeaderName,
    HeaderValue,
    HttpUrl,
    PemFile,
    ProxyUrl,
    QueryName,
    QueryValue,
    Secret,
    Switch,
    Wait,
)


class TimeoutSettings(BaseSection):
    connect: Wait = setting("5s", "How long to wait for a connection.")
    first_byte: Wait = setting(
        "10m", "How long to wait for the first byte of the answer, from the end of the request on."
    )
    idle: Wait = setting(
        "2m", "How long to wait between two pieces of the answer, or of a body that is forwarded as it arrives."
    )
    total: Wait = setting("30m", "How long to wait for the whole answer.")


class HealthSettings(BaseSection):
    asked: CheckPath = setting(
        REQUIRED, "The path requested with GET, after the base URL; a status of 200 to 299 means healthy.", alias="path"
    )
    every: Wait = setting("10s", "The interval between two checks.")


class TlsSettings(BaseSection):
    ca: PemFile | None = setting(
        None, "The authorities that the server's certificate is checked against, in PEM; left out: the system's."
    )
    cert: PemFile | None = setting(None, "The client certificate that the gateway proves itself with, in PEM.")
    key: PemFile | None = setting(None, "The private key of `cert`, in PEM; left out: it is in the file of `cert`.")

    @property
    def files(self) -> dict[str, str]:
        """The paths that are set, by their settings."""
        return {name: path for name in ("ca", "cert", "key") if (path := getattr(self, name)) is not None}


class OtherCredential(NamedTuple):
    """The header that is sent in place of `UpstreamSettings.credential` on the paths of one API."""

    dialect: Dialect
    header: tuple[str, str]


_OTHER_HEADERS = {
    "google": (Dialect.GEMINI, "x-goog-api-key"),
    "foundry": (Dialect.ANTHROPIC, "x-api-key"),
}
"""By `auth`: the API that takes the credential in another header. Of Foundry's it is said in lib/foundry.py of
github.com/anthropics/anthropic-sdk-python."""


_WITHOUT_BASE_URL = [name for name, known in PRESETS.items() if "base_url" not in known]


def _let_presets_name_the_base_url(schema: dict[str, Any]) -> None:
    """For editors, which see what is written and not what a preset fills in."""
    schema["required"].remove("base_url")
    named = {"required": ["preset"], "properties": {"preset": {"not": {"enum": _WITHOUT_BASE_URL}}}}
    schema["anyOf"] = [{"required": ["base_url"]}, named]


class UpstreamSettings(BaseSection):
    model_config = ConfigDict(json_schema_extra=_let_presets_name_the_base_url)

    preset: Literal[*PRESETS] | None = setting(  # type: ignore[valid-type]
        None, "A provider or server whose base URL, auth and quirks are known; settings beside it override it."
    )
    base_url: HttpUrl = setting(REQUIRED, "The URL that the paths of the API follow, usually ending in /v1.")
    api_key: Secret | None = setting(None, "The credential for this server; empty or left out: none is sent.")
    auth: Literal["bearer", "api-key", "x-api-key", "x-goog-api-key", "foundry", "google", "none"] = setting(
        "bearer",
        "How the credential is sent: `Authorization: Bearer`, `api-key` (Azure), `x-api-key` (Anthropic), "
        "`x-goog-api-key` (Gemini), or as Microsoft Foundry or Google's servers want it on the paths of each API "
        "(`foundry`, `google`).",
    )
    endpoints: tuple[EndpointPattern, ...] | None = setting(
        None, "The endpoints that this server has, by name or glob; left out: it is asked for every one.", min_length=1
    )
    base_paths: dict[EndpointPattern, BasePath] = setting(
        {}, "Endpoints whose paths follow another path of this server than that of `base_url`; the first that fits."
    )
    headers: dict[HeaderName, HeaderValue] = setting({}, "Headers added to every request to this server.", repr=False)
    query: dict[QueryName, QueryValue] = setting(
        {}, "Query parameters added to every request to this server.", repr=False
    )
    pass_headers: tuple[HeaderName, ...] = setting((), "Further headers of clients that may reach this server.")
    proxy: ProxyUrl | None = setting(
        None,
        "The forward proxy to this server; `none`: no proxy; left out: HTTP_PROXY, HTTPS_PROXY and NO_PROXY decide.",
        repr=False,
    )
    tls: TlsSettings | None = setting(None, "Certificates for this server; left out: the system's authorities.")
    timeouts: TimeoutSettings = setting({}, "How long to wait for this server.")
    max_connections: Count = setting(512, "Connections to this server at any time, for each process.")
    stream_options: Switch = setting(True, "Whether the server understands `stream_options`; some refuse it.")

    health: HealthSettings | None = setting(
        None, "How the server's health is checked; left out: only its answers to requests count."
    )
    output_cap: Literal["max_tokens", "max_completion_tokens"] = setting(
        "max_tokens", "The field that caps the output of a chat, where the gateway must and the client did not."
    )
    on_disconnect: Literal["cancel", "drain"] = setting(
        "cancel", "When a stream's client leaves: leave the server too, or read on to learn the true usage."
    )

    @classmethod
    def filled(cls, written: dict[Any, Any]) -> dict[Any, Any]:
        preset = written.get("preset")
        return {**PRESETS.get(preset, {}), **written} if isinstance(preset, str) else written

    @property
    def credential(self) -> tuple[str, str] | None:
        """The header, in lower case, that proves the gateway to this server, and its value in clear text."""
        secret = self.api_key.get_secret_value() if self.api_key is not None else ""
        if not secret or self.auth == "none":
            return None
        if self.auth in ("bearer", "google"):
            return "authorization", f"Bearer {secret}"
        return "api-key" if self.auth == "foundry" else self.auth, secret

    @property
    def other_credential(self) -> OtherCredential | None:
        """None where the credential is sent in the same way on the paths of every API."""
        secret = self.api_key.get_secret_value() if self.api_key is not None else ""
        if not secret or self.auth not in _OTHER_HEADERS:
            return None
        dialect, name = _OTHER_HEADERS[self.auth]
        return OtherCredential(dialect, (name, secret))
