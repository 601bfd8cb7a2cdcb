"""Which headers pass through: those of a client to the upstream, and those of an upstream to the client.

A rule is a set of names and a tuple of prefixes, so that a header costs one look-up. Every line of a header that comes
several times passes, in its order: clients send one `anthropic-beta` line for each beta (RFC 9110, section 5.3).

No credential passes, whatever it is called, and nothing of a connection or of the proxies on the way: an operator's
`pass_headers` may not name such a header either. What the gateway itself must decide is not in the tables:
`content-type`, `x-request-id`, the framing.

Sources: the references of OpenAI's, Anthropic's and Azure's APIs; the headers that OpenAI's and Anthropic's libraries,
Claude Code, Codex, opencode and pi send; W3C Trace Context.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import compress

import msgspec

from gateway.core.http_syntax import RESERVED_HEADERS
from gateway.core.remembered import remembered

_REMEMBERED_NAMES = 256
"""Of each rule, and as many sets of names. Clients send the same few dozen names with every request, servers the same
sets; what is remembered must stay bounded."""

REMEMBERED_LINES = 64
"""Sets of more names are not remembered."""


class HeaderLines(msgspec.Struct, frozen=True, gc=False):
    """Lines of a request's head: their names, and the value of each. They are apart, since programs send the same names
    with every request: what follows from the names is remembered for all of them together."""

    names: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, lines: Iterable[tuple[str, str]]) -> HeaderLines:
        pairs = tuple(lines)
        return cls(tuple([name for name, _ in pairs]), tuple([value for _, value in pairs]))

    def lines(self) -> list[tuple[str, str]]:
        return list(zip(self.names, self.values, strict=True))


class PassingHeaders(msgspec.Struct, frozen=True):
    """What passes of a head with certain names: `picks` says it of each of these, `names` are those that do, in lower
    case."""

    picks: tuple[bool, ...]
    names: tuple[str, ...]

    def of(self, headers: Mapping[str, str]) -> HeaderLines:
        """The lines of headers with these names that pass."""
        return HeaderLines(self.names, tuple(compress(headers.values(), self.picks)))


class HeaderRule:
    """All in lower case. `names` always pass. A header that begins with one of `prefixes` passes unless it begins or
    ends like one of `kept_prefixes` or `kept_endings`."""

    def __init__(
        self,
        names: frozenset[str],
        prefixes: tuple[str, ...],
        *,
        kept_endings: tuple[str, ...],
        kept_prefixes: tuple[str, ...] = (),
    ) -> None:
        self._names = names
        self._prefixes = prefixes
        self._kept_endings = kept_endings
        self._kept_prefixes = kept_prefixes
        self._passing_names = remembered(_REMEMBERED_NAMES)(self._find_passing_names)

    def admits(self, name: str) -> bool:
        return bool(self._find_passing_name(name))

    def passing(self, names: tuple[str, ...]) -> PassingHeaders:
        """What passes of a head with these names, each of which is one line."""
        found = [self._find_passing_name(name) for name in names]
        return PassingHeaders(tuple([bool(each) for each in found]), tuple([each for each in found if each]))

    def passed_once(self, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """The lines that pass of headers with names in lower case, each of which is there once: of a repeated one, the
        values have line feeds between them. Which of them pass is remembered for all names together: a server sends the
        same ones with each answer, and only few of them pass."""
        passed: list[tuple[str, str]] = []
        for name in self._passing_names(tuple(headers)):
            value = headers[name]
            if "\n" in value:
                passed += [(name, line) for line in value.split("\n")]
            else:
                passed.append((name, value))
        return passed

    def _find_passing_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple([name for name in names if self._find_passing_name(name)])

    def _find_passing_name(self, name: str) -> str:
        """The name in lower case; empty if it does not pass."""
        lower = name.lower()
        if lower in self._names:
            return lower
        if not lower.startswith(self._prefixes) or lower.startswith(self._kept_prefixes):
            return ""
        return "" if lower.endswith(self._kept_endings) else lower


SESSION_HEADERS = (
    "session-id",
    "x-claude-code-session-id",
    "x-session-id",
    "x-opencode-session",
    "x-session-affinity",
    "session_id",
    "thread-id",
)
"""Where agents name the conversation that a request belongs to; the first that is there counts."""

AGENT_HEADERS = ("x-claude-code-agent-id", "x-openai-subagent", "x-opencode-agent")
"""Where agents say which of their helpers asks."""

TURN_HEADERS = ("x-codex-turn-id", "x-opencode-request")
"""Where agents name the turn of a conversation that a request belongs to."""

TURN_METADATA_HEADER = "x-codex-turn-metadata"
"""JSON, whose `turn_id` names the turn."""

_CREDENTIAL_ENDINGS = ("authorization", "api-key", "-token", "-secret", "cookie")

TO_UPSTREAM = HeaderRule(
    names=frozenset(
        {
            "accept",
            "user-agent",
            "traceparent",
            "tracestate",
            "idempotency-key",
            "session-id",
            "thread-id",
            "x-session-id",
            "x-session-affinity",
            "x-client-request-id",
            "originator",
            "version",
            "x-anthropic-additional-protection",  # Claude Code's users ask Anthropic for it.
        }
    ),
    # Codex says with one of its internal headers that tools are in the input, where a model wants them so.
    prefixes=(
        *("anthropic-", "openai-", "x-stainless-", "x-claude-code-", "x-codex-", "x-opencode-"),
        *("x-claude-remote-", "x-openai-internal-codex-"),
    ),
    kept_endings=_CREDENTIAL_ENDINGS,
)

REPEATED_PREFIXES = ("openai-", "anthropic-", "x-codex-")
"""Of an answer's headers that begin like this, every line reaches the client; of any other, only the last line."""

TO_CLIENT = HeaderRule(
    names=frozenset(
        {
            "content-type",
            "content-disposition",
            "content-encoding",  # The upstream client removes it from what it decodes.
            "content-language",
            "retry-after",
            "retry-after-ms",
            "x-should-retry",
            "x-reasoning-included",  # Codex counts reasoning by itself where it is missing.
            "request-id",
        }
    ),
    prefixes=REPEATED_PREFIXES,
    # How far the limits of the operator's own account are used is not the caller's business.
    kept_prefixes=("anthropic-ratelimit-", "anthropic-priority-", "anthropic-fast-"),
    kept_endings=_CREDENTIAL_ENDINGS,
)

UPSTREAM_ID_HEADERS = ("x-request-id", "request-id", "apim-request-id", "x-ms-request-id", "x-amzn-requestid", "cf-ray")
"""Where a provider names its own record of a request; the first that is there counts."""

_PROXY_NAMES = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "x-original-host", "true-client-ip"})
_PROXY_PREFIXES = ("x-forwarded-", "cf-", "proxy-", "sec-", "access-control-")
_OWN_NAMES = frozenset({"content-type", "content-encoding", "x-request-id", "origin", "referer"})


def is_credential(name: str) -> bool:
    """Whether a header, or a query parameter, of this name is one that proves who sends it."""
    return name.lower().endswith((*_CREDENTIAL_ENDINGS, "key", "token", "secret", "password", "signature", "sig"))


def carries_credential(name: str) -> bool:
    """Whether a header of this name carries a client's credential. Narrower than `is_credential`: `x-customer-key` can
    be a name, and an operator who names such a header knows which of both it is."""
    return name.lower().endswith(_CREDENTIAL_ENDINGS)


def pass_header_fault(name: str) -> str:
    """Why `pass_headers` may not name this header, as the end of a sentence that begins with its name; empty if it
    may."""
    name = name.lower()
    if "*" in name:
        return "is read as it is, and not as a pattern; write each header by its name"
    if name in RESERVED_HEADERS or name in _OWN_NAMES:
        return "is a header that the gateway sets itself, or never passes on"
    if carries_credential(name):
        return "can carry a credential of the client, which no upstream may see"
    if name in _PROXY_NAMES or name.startswith(_PROXY_PREFIXES):
        return "says how the request came to the gateway, which no upstream may see"
    return ""


def first_of(names: tuple[str, ...], headers: Mapping[str, str]) -> str:
    """The value of the first of these headers that is present; empty if none is."""
    return next(filter(None, map(headers.get, names)), "")
