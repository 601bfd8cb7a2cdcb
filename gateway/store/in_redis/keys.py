"""The names of all keys in Redis.

`prefix:schema:{tag}:…`: the hash tag in braces decides the slot of a cluster, so that the counters of one team, its
keys and its users are in one slot. Another schema uses other names, so that a name never changes its meaning.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from urllib.parse import quote

from gateway.core.limits import Limit, Scope
from gateway.core.stored_objects import ObjectName
from gateway.store.contract import CounterOwner

SCHEMA = 1
"""Of counters, records and the ledger's first rows."""

LEDGER_SCHEMA = 2
"""Of the ledger's details; ledger.py says what each of the two has."""

ORGANISATION = "o"
"""The hash tag of what belongs to no team and no model."""

IDENTITY = "k"
"""The hash tag of stored keys and of the audit."""

_PLAIN = "/.-_@+"
_LONGEST = 64
_AS_IT_IS = re.compile(r"[A-Za-z0-9/.\-_@+]{0,64}")


class StoreKeys:
    def __init__(self, prefix: str) -> None:
        self._prefix = _plain(prefix)
        self._stem = f"{self._prefix}:{SCHEMA}"
        self._tags: dict[str, str] = {}

    def counter(self, limit: Limit) -> str:
        """Of a quota without the beginning of its window: `:` and the milliseconds follow."""
        subject = _digest(limit.subject) if limit.scope is Scope.USER else _plain(limit.subject)
        which = f":{_digest('|'.join(limit.models))}" if limit.models else ""
        whose = f"{self._of(limit.team) if limit.team else self._at(hash_tag(limit))}:c:{limit.scope}:{subject}"
        return f"{whose}:{limit.meter}:{limit.per or 'now'}:{_plain(limit.name)}{which}"

    def records(self, tag: str, process: str) -> str:
        """What the keys of a process's records begin with, in the slot of this tag."""
        return f"{self._at(tag)}:r:{process}:"

    def record(self, tag: str, process: str, at_ms: int) -> str:
        """Of the record of the reservations that a process made in this second."""
        return f"{self.records(tag, process)}{at_ms // 1000}"

    def ledger(self, team: str, day: str) -> str:
        return f"{self._of(team)}:l:{day}"

    def details(self, team: str, day: str) -> str:
        """Of the ledger's rows with upstream and cost centre."""
        return f"{self._ledger_stem(team)}:l:{day}"

    def users(self, team: str, day: str) -> str:
        """Of the ledger's rows with end users."""
        return f"{self._ledger_stem(team)}:u:{day}"

    def user_scores(self, team: str, day: str) -> str:
        """Of the scores by which end users displace one another."""
        return f"{self._ledger_stem(team)}:s:{day}"

    def user_names(self, team: str, day: str) -> str:
        """Of the names of the rows that each end user has."""
        return f"{self._ledger_stem(team)}:n:{day}"

    def days(self, team: str) -> str:
        """Of the days that a team's ledger has, and of the one until which it is closed."""
        return f"{self._of(team)}:days"

    def teams(self) -> str:
        """Of the set of teams that the ledger knows."""
        return f"{self._at(ORGANISATION)}:teams"

    def journal_key(self) -> str:
        """Of the key that signs the journals of every gateway."""
        return f"{self._at(ORGANISATION)}:journal-key"

    def closed(self) -> str:
        """Of the days until which the ledger of all teams is closed, or is being closed."""
        return f"{self._prefix}:{LEDGER_SCHEMA}:{{{ORGANISATION}}}:closed"

    def identity(self, what: str) -> str:
        """Of what is kept of stored keys, under one hash tag."""
        return f"{self._at(IDENTITY)}:{what}"

    def stored_object(self, name: ObjectName) -> str:
        """The owner of an object that an upstream keeps: each in its own slot."""
        return f"{self._at('s/' + _digest(f'{name.kind} {name.id}'))}"

    def estimates(self) -> str:
        """Of what processes have learned about requests."""
        return f"{self._at(ORGANISATION)}:e"

    def losses(self) -> str:
        """Of the sums of what was lost or at risk."""
        return f"{self._at(ORGANISATION)}:losses"

    def losses_of_day(self, day: int) -> str:
        """Of the same by time, of one day since 1970 in UTC."""
        return f"{self.losses()}:{day}"

    def notifications(self, tag: str) -> str:
        """Of the notifications that wait in the slot of this tag."""
        return f"{self._at(tag)}:n"

    def notification_past(self, kind: str) -> str:
        """Of the last attempts to deliver notifications."""
        return f"{self.notifications(ORGANISATION)}:past:{kind}"

    def notification_flag(self, flag: str) -> str:
        """Of what says that something was notified of."""
        return f"{self.notifications(ORGANISATION)}:{_digest(flag)}"

    def request_records(self, team: str) -> tuple[str, str]:
        """Of the records of a team's requests and of their order; of requests without a known key where it is empty."""
        stem = self._of(team) if team else self._at(ORGANISATION)
        return f"{stem}:x", f"{stem}:xo"

    def process_calls(self) -> str:
        """Of the channel on which processes are asked."""
        return f"{self._at(ORGANISATION)}:calls"

    def process_replies(self, question: str) -> str:
        """Of the list of the replies to a question, in the slot of the channel."""
        return f"{self._at(ORGANISATION)}:replies:{question}"

    def journal(self, tag: str, process: str) -> str:
        """Of how far the journal of a process has been replayed."""
        return f"{self._at(tag)}:j:{process}"

    def _of(self, team: str) -> str:
        """What a team's keys begin with; there are as many teams as the configuration names."""
        known = self._tags.get(team)
        if known is None:
            known = self._tags[team] = self._at(team_tag(team))
        return known

    def _ledger_stem(self, team: str) -> str:
        """What the keys of the ledger's second schema begin with."""
        return f"{self._prefix}:{LEDGER_SCHEMA}:{{{team_tag(team)}}}"

    def _at(self, tag: str) -> str:
        return f"{self._stem}:{{{tag}}}"


def owner_of_counter(name: str) -> CounterOwner:
    """Of a name as `StoreKeys.counter` gives it."""
    scope, _, rest = name.partition("}:c:")[2].partition(":")
    return CounterOwner(scope, rest.partition(":")[0])


def gathered_users(counter: str, begins: int | str) -> str:
    """Of the end users who have crossed thresholds of a limit in a window: `counter` is that of an empty user."""
    return f"{counter}:{begins}:users"


def hash_tag(limit: Limit) -> str:
    if limit.team:
        return team_tag(limit.team)
    return model_tag(limit.subject) if limit.scope is Scope.MODEL else ORGANISATION


def tag_in(key: str) -> str:
    """The hash tag of a key."""
    return key.partition("{")[2].partition("}")[0]


def team_tag(team: str) -> str:
    return f"t/{_plain(team)}"


def model_tag(model: str) -> str:
    return f"m/{_plain(model)}"


def _plain(text: str) -> str:
    """Without braces, colons and spaces, and not too long."""
    if _AS_IT_IS.fullmatch(text):
        return text
    quoted = quote(text, safe=_PLAIN)
    return quoted if len(quoted) <= _LONGEST else _digest(text)


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=12).hexdigest()
