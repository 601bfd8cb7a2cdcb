"""All settings of the configuration. docs/configuration.md explains them.

A new setting is one line here, or in the module of its section, and one there. `checks.py` has what must hold between
settings.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import cached_property
from typing import Literal

from pydantic import ConfigDict

from gateway.core.end_users import MOST_USERS
from gateway.core.issuers import TOKEN_ALGORITHMS
from gateway.core.notifications import EVERYBODY, EventKind
from gateway.core.proxies import EnvironmentProxies
from gateway.core.store_url import IN_MEMORY
from gateway.settings.base_section import REQUIRED, BaseSection, setting
from gateway.settings.limit_settings import Limits
from gateway.settings.price_settings import PriceSettings
from gateway.settings.types import (
    Audiences,
    ByteSize,
    ClaimName,
    Count,
    Duration,
    Folder,
    GroupName,
    HeaderName,
    IpNetwork,
    Issuer,
    JwksPlace,
    ListenAddress,
    ListenAddresses,
    ModelName,
    ModelPattern,
    Moment,
    Origin,
    Percent,
    Secret,
    SecretUrl,
    Sha256,
    ShortName,
    StoreUrl,
    Switch,
    TeamPattern,
    Timezone,
    TokenAlgorithms,
    Wait,
    WebhookSecret,
    Workers,
)
from gateway.settings.upstream_settings import UpstreamSettings
from gateway.settings.value_readers import moment_in


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
    url: StoreUrl = setting(IN_MEMORY, "Where counters and the ledger are kept.", repr=False)
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

    @property
    def is_in_memory(self) -> bool:
        """Whether each process keeps everything itself."""
        return self.url == IN_MEMORY


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
    """How the end user of a team's request is found, in addition to the request's body."""

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
        """The path of the file."""
        return ""

    @cached_property
    def referenced_files(self) -> tuple[str, ...]:
        """The paths of the files that its `${file:…}` name."""
        return ()

    @cached_property
    def text(self) -> str:
        """Its text, with the secrets that are written in it."""
        return ""

    @cached_property
    def proxies(self) -> EnvironmentProxies:
        """The proxies of the environment that they were read in; none for settings built in code."""
        return EnvironmentProxies()
