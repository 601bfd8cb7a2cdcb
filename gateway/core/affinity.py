"""Sends requests that belong together to the same target, where the beginning of their prompt is in the cache.

Rendezvous hashing: each key ranks the targets in its own order, so that a target that comes or goes moves only its own
keys. Bounded load: a target that has more in flight than its share is skipped (Mirrokni et al., "Consistent Hashing
with Bounded Loads", 2016).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec

from gateway.core.header_rules import SESSION_HEADERS, first_of
from gateway.core.health import Candidate
from gateway.core.request import ParsedRequest
from gateway.core.snapshot import Target

LOAD_BOUND = 1.25
"""A target may have this many times its share of the requests in flight."""

KEY_BYTES = 1024
"""The part of each message that counts: long enough to distinguish prompts, short enough to cost nothing."""


_CACHE_KEYS = ("prompt_cache_key", "session_id")
"""Members of a body that name what shares a prompt's cache: OpenAI's, OpenRouter's."""


def key_of(parsed: ParsedRequest, headers: Mapping[str, str]) -> bytes:
    """The key that requests with the same target share; empty if nothing binds the request to a target."""
    affinity = parsed.binding.model.affinity
    if affinity == "none":
        return b""
    if affinity == "session":
        return _session(parsed, headers) or _prefix(parsed)
    return parsed.user.encode("utf-8", "surrogatepass") if affinity == "user" else _prefix(parsed)


def favourite(key: bytes, candidates: Sequence[Candidate]) -> Target | None:
    """The target that the key prefers, among those of the first priority that are healthy and not overloaded."""
    healthy = [candidate for candidate in candidates if candidate.share >= 1.0]
    first = min((candidate.target.priority for candidate in healthy), default=0)
    group = [candidate for candidate in healthy if candidate.target.priority == first]
    in_flight = sum(candidate.in_flight for candidate in group) + 1
    weights = sum(candidate.target.weight for candidate in group)

    def has_room(candidate: Candidate) -> bool:
        bound = math.ceil(LOAD_BOUND * in_flight * candidate.target.weight / weights)
        return candidate.in_flight < min(bound, candidate.target.upstream.max_connections)

    able = [candidate.target for candidate in group if has_room(candidate)]
    return min(able, key=lambda target: _distance(key, target), default=None)


def _distance(key: bytes, target: Target) -> float:
    """An exponentially distributed distance, with the weight as its rate: each target is nearest as often as its weight
    says."""
    name = f"{target.upstream.name}\n{target.model}".encode()
    drawn = int.from_bytes(blake2b(key, digest_size=8, key=blake2b(name, digest_size=32).digest()).digest())
    return -math.log((drawn + 1) / (2**64 + 1)) / target.weight


def _session(parsed: ParsedRequest, headers: Mapping[str, str]) -> bytes:
    """The conversation that the client names, in a header or else in the body. Two callers may use the same name, which
    only shares a target."""
    named = first_of(SESSION_HEADERS, headers)
    if named:
        return named.encode("utf-8", "surrogateescape")[:KEY_BYTES]
    for name in _CACHE_KEYS:
        value = parsed.members.value(name)
        if value is not None and value != b"null":
            return value[:KEY_BYTES]
    return b""


def _prefix(parsed: ParsedRequest) -> bytes:
    """The messages up to the first of the user: they stay the same while a conversation grows."""
    members = parsed.endpoint.input_members
    text = members and parsed.members.value(members[0])
    if not text:
        return b""
    try:
        messages = msgspec.json.decode(text, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return text[:KEY_BYTES]
    opening: list[bytes] = []
    for message in messages:
        opening.append(bytes(message)[:KEY_BYTES])
        if b'"user"' in opening[-1]:
            break
    return b"\n".join(opening)
