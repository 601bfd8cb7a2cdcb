"""Every setting that there is: its name, type, default and meaning. docs/configuration.md explains them.

A new setting is one line here and one there; what must hold between settings is in the checks. `BaseSection` is what
every group of settings has in common: it is frozen, refuses unknown names, describes each of its settings, and knows
its path in the file, so that checks across groups can name a line too. A limit (`LimitSettings`) is written as one
meter with its amount, a window, and which models it counts.
"""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from gateway.core.end_users import MOST_USERS
from gateway.core.endpoints import Dialect
from gateway.core.issuers import TOKEN_ALGORITHMS
from gateway.core.limits import Limit, Meter, Mode, Per, Scope, WhenSpent
from gateway.core.notifications import EVERYBODY, EventKind
from gateway.core.proxies import EnvironmentProxies
from gateway.settings.diagnostics import Path
from gateway.settings.document import DocumentMapping
from gateway.settings.presets import PRESETS
from gateway.settings.types import (
    Amount,
    Audiences,
    BasePath,
    ByteSize,
    CheckPath,
    ClaimName,
    Count,
    DollarsPerMillion,
    DollarsPerMillionCharacters,
    DollarsPerUnit,
    Duration,
    EndpointPattern,
    Folder,
    GroupName,
    HeaderName,
    HeaderValue,
    HttpUrl,
    IpNetwork,
    Issuer,
    JwksPlace,
    ListenAddress,
    ListenAddresses,
    ModelName,
    ModelPattern,
    Moment,
    Origin,
    PemFile,
    Percent,
    ProxyUrl,
    QueryName,
    QueryValue,
    Secret,
    SecretUrl,
    Sha256,
    ShortName,
    StoreUrl,
    Switch,
    TeamPattern,
    TierName,
    Timezone,
    TokenAlgorithms,
    Wait,
    WebhookSecret,
    Workers,
)

REQUIRED: Any = ...


def setting(default: Any, means: str, **constraints: Any) -> Any:
    """A setting: its default as one would write it in the file, and what it means."""
    return Field(default=default, description=means, **constraints)


class BaseSection(BaseModel):
    """A setting that is nothing (`limits:` and no more) counts as left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    @cached_property
    def path(self) -> Path:
        """Its path in the file; empty for settings built in code."""
        return ()

    @classmethod
    def filled(cls, written: dict[Any, Any]) -> dict[Any, Any]:
        """What was written, with defaults that depend on it."""
        return written

    @model_validator(mode="wrap")
    @classmethod
    def _place(cls, given: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        written = {} if given is None else given
        if isinstance(written, dict):
            if None in written.values():
                names = cls.model_fields
                written = {name: value for name, value in written.items() if value is not None or name not in names}
            written = cls.filled(written)
        section = build(written)
        if isinstance(given, DocumentMapping):
            # As if it were computed already: a private attribute of pydantic's costs ten times as much.
            section.__dict__["path"] = given.path
        return section


MICRO = 1_000_000

_METERS = tuple(Meter)
_ONE_METER: dict[str, Any] = {"oneOf": [{"required": [meter.value]} for meter in Meter]}


class LimitSettings(BaseSection):
    """One meter with its amount, a window, and which models it counts."""

    model_config = ConfigDict(json_schema_extra=_ONE_METER)

    requests: Count | None = setting(None, "Requests in each window.")
    tokens: Count | None = setting(None, "Tokens of input and output together in each window.")
    input_tokens: Count | None = setting(None, "Tokens of input in each window.")
    output_tokens: Count | None = setting(None, "Tokens of output in each window.")
    usd: Amount | None = setting(None, "US dollars in each window, by the models' prices.")
    concurrent: Count | None = setting(None, "Requests in flight at any time; has no `per`.")
    per: Literal["second", "minute", "hour", "day", "week", "month", "total"] | None = setting(
        None,
        "The window: second, minute and hour make a rate that refills continuously; "
        "day, week, month and total a quota over the calendar window.",
    )
    burst: Amount | None = setting(None, "What a rate's bucket holds at most; left out: the amount.")
    name: ShortName | None = setting(None, "What it is called; left out: generated from meter, window and models.")
    models: tuple[ModelPattern, ...] | None = setting(
        None, "The models whose requests it counts, as globs; left out: all that its scope may use.", min_length=1
    )
    mode: Literal["enforce", "shadow"] = setting("enforce", "`shadow`: it counts and is shown, but refuses no request.")
    when_spent: Literal["finish", "stop"] = setting(
        "finish", "Of quotas: whether a running stream may finish its answer, or is stopped where the quota ends."
    )

    @property
    def meters(self) -> tuple[Meter, ...]:
        """The meters that are set: exactly one in a limit that is valid."""
        return tuple(meter for meter in _METERS if getattr(self, meter) is not None)

    @cached_property
    def meter(self) -> Meter:
        return self.meters[0]

    @cached_property
    def window(self) -> Per | None:
        return Per(self.per) if self.per else None

    @cached_property
    def amount(self) -> int:
        """In the meter's unit: requests, tokens or micro-dollars."""
        return self._units(getattr(self, self.meter))

    @property
    def bucket(self) -> int:
        """What a rate's bucket holds, in the meter's unit; the amount for other kinds."""
        return self.amount if self.burst is None else self._units(self.burst)

    @cached_property
    def title(self) -> str:
        """Its name. A generated one does not depend on the amount: counters are kept under it, and a limit that is
        raised goes on from what was used."""
        return self.name or self._generated_title()

    def limit(self, scope: Scope, subject: str = "", team: str = "") -> Limit:
        """As requests are bound by it."""
        return Limit(
            name=self.title,
            scope=scope,
            subject=subject,
            meter=self.meter,
            per=self.window,
            amount=self.amount,
            burst=self.bucket,
            team=team,
            models=self.models or (),
            mode=Mode(self.mode),
            when_spent=WhenSpent(self.when_spent),
        )

    def _generated_title(self) -> str:
        meter = self.meter.replace("_", "-")
        kind = {None: meter, Per.TOTAL: f"{meter}-in-total"}.get(self.window, f"{meter}-per-{self.per}")
        return f"{kind}:{','.join(sorted(set(self.models)))}" if self.models else kind

    def _units(self, written: int | Decimal) -> int:
        return int(written * MICRO) if self.meter is Meter.USD else int(written)


Limits = tuple[LimitSettings, ...]


class AdminSettings(BaseSection):
    listen: ListenAddress = setting("127.0.0.1:9090", "The listener for operators: metrics, health, readiness.")
    token: Secret | None = setting(None, "The bearer token of the admin API; left out or empty: the API is closed.")

    @property
    def secret(self) -> str:
        """The token in clear text, empty where the admin API is closed."""
        return "" if self.token is None else self.token.get_secret_value()


class CorsSettings(BaseSection):
    origins: tuple[Origin, ...] = setting(
        (), "The origins whose pages may call the gateway from a browser; `*`: every origin. Left out: none."
    )


class DrainSettings(BaseSection):
    delay: Duration = setting("5s", "How long to continue serving after SIGTERM, so that load balancers notice.")
    timeout: Duration = setting("10m", "How long running streams may take to finish after that.")


class RecordSettings(BaseSection):
    """What is kept of requests for `gateway explain`; never content."""

    requests: Literal["none", "failed", "all"] = setting("failed", "Which requests have a record.")
    keep: Wait = setting("24h", "For how long a record is kept.")
    most: Count = setting(10_000, "Records that are kept of all teams together; each team has an equal share.")


class StoreSettings(BaseSection):
    url: StoreUrl = setting("memory://", "Where counters and the ledger are kept.", repr=False)
    timeout: Wait = setting(
        "250ms", "How long Redis may be silent while calls wait; then the store counts as unavailable."
    )
    on_outage: Literal["refuse", "allow"] = setting(
        "refuse", "While the store is unavailable: refuse requests, or let them through and charge them later."
    )
    journal: Folder | None = setting(
        None, "Where usage waits while the store is unavailable; left out: the user's state directory."
    )
    journal_unsigned: Literal["park", "accept"] = setting(
        "park", "What is done with entries of a journal that no gateway of this store has signed: kept, or charged."
    )
    prefix: ShortName = setting("gw", "What the names of all keys in Redis begin with.")


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


class UpstreamSettings(BaseSection):
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


class PriceListSettings(BaseSection):
    """Prices, each of which may be left out."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    input: DollarsPerMillion | None = setting(None, "USD per million tokens of input; left out: it is free.")
    output: DollarsPerMillion | None = setting(None, "USD per million tokens of output; left out: it is free.")
    cached_input: DollarsPerMillion | None = setting(
        None, "USD per million tokens of input that the upstream had cached; left out: as `input`."
    )
    cache_write: DollarsPerMillion | None = setting(
        None, "USD per million tokens of input that the upstream cached for five minutes; left out: as `input`."
    )
    cache_write_1h: DollarsPerMillion | None = setting(
        None, "USD per million tokens of input that the upstream cached for an hour; left out: as `input`."
    )
    audio_input: DollarsPerMillion | None = setting(
        None, "USD per million tokens of audio in the input; left out: as `input`."
    )
    audio_output: DollarsPerMillion | None = setting(
        None, "USD per million tokens of audio in the output; left out: as `output`."
    )
    image_input: DollarsPerMillion | None = setting(
        None, "USD per million tokens of images in the input; left out: as `input`."
    )
    image_output: DollarsPerMillion | None = setting(
        None, "USD per million tokens of images in the output; left out: as `output`."
    )
    request: DollarsPerUnit | None = setting(None, "USD per request; left out: it is free.")
    image: DollarsPerUnit | None = setting(None, "USD per image that is made; left out: it is free.")
    search: DollarsPerUnit | None = setting(None, "USD per search of the upstream's; left out: it is free.")
    second: DollarsPerUnit | None = setting(None, "USD per second of audio; left out: it is free.")
    million_characters: DollarsPerMillionCharacters | None = setting(
        None, "USD per million characters that are spoken; left out: they are free."
    )

    @property
    def prices(self) -> dict[str, Decimal]:
        """Those that are written down, by their names."""
        names = PriceListSettings.model_fields
        return {name: usd for name in names if (usd := getattr(self, name)) is not None}


class PriceStepSettings(PriceListSettings):
    model_config = ConfigDict(json_schema_extra={"minProperties": 2})

    tokens: Count = setting(REQUIRED, "The prices hold for requests whose input has more tokens than this.")


class TierPriceSettings(PriceListSettings):
    above: tuple[PriceStepSettings, ...] = setting((), "Other prices of requests with a long input.")


class PriceSettings(TierPriceSettings):
    tiers: dict[TierName, TierPriceSettings] = setting({}, "Other prices of answers that name a service tier.")


class RouteSettings(BaseSection):
    upstream: ShortName = setting(REQUIRED, "The name of an upstream.")
    model: ModelName | None = setting(None, "What that upstream calls the model; left out: the same name.")
    weight: Count = setting(1, "Its share of the requests among routes of the same priority.")
    priority: Count = setting(1, "Lower numbers are tried first.")
    price: PriceSettings | None = setting(None, "What its requests cost; left out: the model's `price`.")


class ModelSettings(BaseSection):
    model_config = ConfigDict(json_schema_extra={"required": ["routes"]})

    aliases: tuple[ModelName, ...] = setting((), "Other names that clients may ask for.")
    routes: tuple[RouteSettings, ...] = setting((), "Where requests for this model can go; at least one.")
    context_window: Count | None = setting(None, "Tokens of input and output that the model can take together.")
    max_output_tokens: Count | None = setting(
        None, "Tokens that one answer may have; larger requests are lowered to it."
    )
    affinity: Literal["none", "user", "prefix", "session"] = setting(
        "none",
        "Which requests go to the same route while it is healthy: those of one `user`, those that begin alike, "
        "or those of one session of an agent.",
    )
    price: PriceSettings | None = setting(None, "What its requests cost; left out: they are counted as free.")
    limits: Limits = setting((), "Limits on this model, shared by all teams.")


class KeySettings(BaseSection):
    """A key of a team, given by `key` or by `sha256`, never both."""

    name: ShortName = setting(REQUIRED, "The key's name in logs and reports.")
    key: Secret | None = setting(None, "The key itself, from the environment or a file.")
    sha256: Sha256 | None = setting(None, "The SHA-256 of the key, in place of the key itself.")
    expires: Moment | None = setting(None, "When the key stops working; a date is its first moment in `timezone`.")
    disabled: Switch = setting(False, "Whether it is refused.")
    models: tuple[ModelPattern, ...] | None = setting(
        None, "The models that it may use, as globs; left out: all of its team's.", min_length=1
    )
    networks: tuple[IpNetwork, ...] = setting(
        (), "From where it may be used, in CIDR notation; left out: from everywhere."
    )
    limits: Limits = setting((), "Limits on this key only.")

    @property
    def digest(self) -> str:
        """The SHA-256 of the key in hexadecimal, empty for a key that cannot be used."""
        if self.sha256 is not None:
            return self.sha256
        secret = "" if self.key is None else self.key.get_secret_value()
        return hashlib.sha256(secret.encode()).hexdigest() if secret else ""

    def expires_at(self, timezone: Timezone) -> datetime | None:
        """The moment of its expiry; what names no offset is in `timezone`."""
        return None if self.expires is None else moment_in(self.expires, timezone)


class EndUserSettings(BaseSection):
    """From whom the team's requests come, beside what their bodies say."""

    header: HeaderName | None = setting(
        None, "The header in which the team's own services name the end user; it takes precedence over the body."
    )
    required: Switch = setting(False, "Whether a request that names no end user is refused.")
    most: Count = setting(
        MOST_USERS, "End users of a day, in each process, that `user_limits` count by themselves; others share one."
    )


class TeamSettings(BaseSection):
    models: tuple[ModelPattern, ...] | None = setting(
        None, "The models that the team may use, as globs; left out: every model.", min_length=1
    )
    cost_center: str = setting("", "What reports of usage can group the team by.", max_length=64)
    owner: str = setting("", "Who is responsible for the team; notifications name it.", max_length=256)
    limits: Limits = setting((), "Limits shared by all of the team's keys.")
    key_limits: Limits = setting(
        (), "Limits on each key of the team by itself; a key's own limit of the same name replaces it."
    )
    user_limits: Limits = setting((), "Limits on each end user (the request's `user`) by itself.")
    end_user: EndUserSettings = setting({}, "How the end user of the team's requests is found.")
    keys: tuple[KeySettings, ...] = setting((), "The keys of the team.")


class JwtSettings(BaseSection):
    """An identity provider, whose tokens are taken in place of a key."""

    issuer: Issuer = setting(REQUIRED, "What its tokens have in `iss`, exactly.")
    audience: Audiences = setting(REQUIRED, "What its tokens for this gateway have in `aud`: one, or a list of some.")
    jwks: JwksPlace | None = setting(
        None,
        "Where its public keys are (JWK Set): a URL or the path of a file; left out: what its discovery document says.",
    )
    algorithms: TokenAlgorithms = setting(TOKEN_ALGORITHMS, "The signature algorithms that are accepted.")
    user: ClaimName = setting("sub", "The claim that names the end user; a token without it is refused.")
    groups: ClaimName = setting("groups", "The claim that lists the groups of a user.")
    teams: dict[GroupName, ShortName] = setting(
        {}, "Which team a group belongs to; of several groups of a token, the first here decides."
    )
    team: ClaimName | None = setting(
        None, "The claim that names a team, or a group of `teams`; it takes precedence over `groups`."
    )
    default_team: ShortName | None = setting(
        None, "The team of tokens that no group puts into another; left out: they are refused."
    )
    models: ClaimName | None = setting(
        None, "The claim that lists the models that a token may use, of its team's; left out, or missing: all of them."
    )

    @property
    def keys_place(self) -> str:
        """Where the public keys are, or the document that says where (OpenID Connect Discovery 1.0, section 4)."""
        return self.jwks or f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"


class NotifySettings(BaseSection):
    """A receiver of notifications."""

    name: ShortName | None = setting(
        None, "What it is called in the log and in metrics; left out: its format and its place in the list."
    )
    url: SecretUrl = setting(REQUIRED, "Where notifications are sent with POST.")
    format: Literal["slack", "json"] = setting(
        "json", "`slack`: an incoming webhook of Slack or what is like it; `json`: Standard Webhooks, signed."
    )
    secret: WebhookSecret | None = setting(None, "What `json` is signed with; required there.")
    at: tuple[Percent, ...] = setting(("80%", "95%", "100%"), "The parts of a quota that it wants to know of.")
    teams: tuple[TeamPattern, ...] = setting(
        (EVERYBODY,), "The teams that it wants to know of; `*`: all, and what belongs to no team.", min_length=1
    )
    events: tuple[Literal[*EventKind], ...] = setting(  # type: ignore[valid-type]
        tuple(EventKind), "What it wants to know of.", min_length=1
    )


class Settings(BaseSection):
    """The configuration of the gateway."""

    model_config = ConfigDict(json_schema_extra={"required": ["upstreams", "models"]})

    listen: ListenAddresses = setting(
        "0.0.0.0:8080", "The listener for clients: an address, or a list of them; [::] also takes IPv4."
    )
    admin: AdminSettings = setting({}, "The listener and the API for operators.")
    trusted_proxies: tuple[IpNetwork, ...] = setting(
        (), "The networks of the proxies in front of the gateway, whose X-Forwarded-For names the client's address."
    )
    cors: CorsSettings = setting({}, "Which web pages may call the gateway.")
    workers: Workers = setting(1, "Processes that share the port; auto: one for each core.")
    timezone: Timezone = setting("UTC", "Where a day, a week and a month begin.")
    max_body: ByteSize = setting("32MiB", "The largest body that a request may have, after decompression.")
    max_body_memory: ByteSize = setting(
        "256MiB", "What the bodies of all requests may take together in a process; beyond it requests wait."
    )
    max_clients: Count = setting(
        10_000, "Connections of clients to a process; the admin listener has its own. Beyond it, idle ones are closed."
    )
    keepalive: Duration = setting("15s", "After how much silence a stream gets a comment; 0s: never.")
    drain: DrainSettings = setting({}, "What happens at SIGTERM.")
    record: RecordSettings = setting({}, "What is kept of requests, to explain them later.")
    store: StoreSettings = setting({}, "Where counters and the ledger are kept.")
    upstreams: dict[ShortName, UpstreamSettings] = setting({}, "The model servers, by name; at least one.")
    models: dict[ModelName, ModelSettings] = setting({}, "The models, by the name that clients ask for; at least one.")
    limits: Limits = setting((), "Limits on the whole organisation.")
    teams: dict[ShortName, TeamSettings] = setting({}, "Who may use the gateway.")
    notify: tuple[NotifySettings, ...] = setting((), "Who is notified of quotas, upstreams, the store and keys.")
    jwt: tuple[JwtSettings, ...] = setting((), "Identity providers whose tokens are accepted in place of keys.")

    @cached_property
    def file_hash(self) -> str:
        """The beginning of the SHA-256 of the file that they were read from; empty for settings built in code."""
        return ""

    @cached_property
    def file(self) -> str:
        """The path of that file."""
        return ""

    @cached_property
    def referenced_files(self) -> tuple[str, ...]:
        """The paths of the files that its `${file:…}` name."""
        return ()

    @cached_property
    def text(self) -> str:
        """What is in it, with the secrets that are written there."""
        return ""

    @cached_property
    def proxies(self) -> EnvironmentProxies:
        """Those of the environment that they were read in; none for settings built in code."""
        return EnvironmentProxies()


def moment_in(written: date, timezone: Timezone) -> datetime:
    """A day is its first moment; what names no offset is in `timezone`."""
    moment = written if isinstance(written, datetime) else _midnight(written)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)  # noqa: DTZ001 the caller sets the zone
