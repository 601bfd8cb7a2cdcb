from __future__ import annotations

import pytest

from gateway.app.snapshot_builder import snapshot
from gateway.core.limits import Limit
from tests.unit.settings.configurations import TEAM, VALID, assert_refused, assert_warned, loaded

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENVIRON = {"HOOK": "https://hooks.example/T0/B0/xyz", "SECRET": SECRET}
HEAD = VALID + TEAM + "notify:\n"


def entry(url: str = "${HOOK}", more: str = "secret: '${SECRET}'") -> str:
    return f"  - {{url: '{url}', {more}}}"


def test_a_receiver_is_read_with_its_defaults() -> None:
    read = loaded(HEAD + entry(), ENVIRON)
    (written,) = read.settings.notify
    assert (written.format, written.at, written.teams) == ("json", (80, 95, 100), ("*",))
    assert written.events == ("quota", "upstream", "store", "configuration", "key")
    assert read.warnings == ()
    (channel,) = snapshot(read.settings).channels
    assert (channel.name, channel.url, channel.secret) == ("json-1", ENVIRON["HOOK"], SECRET)


def test_what_is_secret_is_never_shown() -> None:
    settings = loaded(HEAD + entry(), ENVIRON).settings
    assert "xyz" not in repr(settings)
    assert SECRET not in repr(settings)
    assert "xyz" not in str(settings.notify[0].model_dump())


@pytest.mark.parametrize("part", ["80", "0%", "101%", "'80 %'", "0.8"])
def test_parts_are_percent(part: str) -> None:
    with pytest.raises(Exception, match=r"notify\[0\]\.at\[0\]: must be a part in percent from 1% to 100%"):
        loaded(HEAD + entry(more=f"secret: '{SECRET}', at: [{part}]"), ENVIRON)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%%"])
def test_a_secret_is_one_of_the_specification(secret: str) -> None:
    with pytest.raises(Exception, match=r"notify\[0\]\.secret: must be whsec_ and 24 to 64 random bytes in base64"):
        loaded(HEAD + entry(more=f"secret: '{secret}'"), ENVIRON)


def test_json_is_signed_and_slack_is_not() -> None:
    assert_refused(
        HEAD + entry("https://x.test/", "at: [80%]") + " # !",
        "notify[0]: has no `secret` that the receiver could check the signature with",
    )
    assert_refused(
        HEAD + entry("https://x.test/", f"format: slack, secret: '{SECRET}'") + " # !",
        "notify[0].secret: has no effect on `format: slack`; leave it out",
    )


def test_names_are_given_once() -> None:
    one = entry("https://x.test/", "format: slack, name: ops")
    assert_refused(
        f"{HEAD}{one}\n{one} # !", "notify[1].name: is the name of another receiver, ops; give one another `name`"
    )


def test_teams_are_there() -> None:
    assert_refused(
        HEAD + entry("https://x.test/", "format: slack, teams: ['sea*', serach]") + " # !",
        "notify[0].teams[1]: matches no team of this configuration; did you mean search?",
    )


def test_a_url_is_one() -> None:
    with pytest.raises(Exception, match=r"notify\[0\]\.url: must be an http:// or https:// URL"):
        loaded(HEAD + entry("ftp://x.test/", "format: slack"), ENVIRON)


def test_what_is_in_clear_text_or_without_tls_is_warned_of() -> None:
    assert_warned(
        HEAD + entry("https://x.test/", "format: slack") + " # !",
        "notify[0].url: is in clear text in the file; take it from ${NAME} or ${file:PATH}",
    )
    found = loaded(HEAD + entry(more="format: slack"), {"HOOK": "http://x.test/"}).warnings
    assert [warning.message for warning in found] == [
        "is sent to without TLS: an attacker on the network can read it; use https:// (the value comes from ${HOOK})"
    ]


def test_limits_know_the_parts_that_anyone_wants_to_know_of() -> None:
    text = (
        VALID
        + TEAM
        + "    limits: [{tokens: 5, per: day}, {tokens: 5, per: minute}]\n"
        + "    key_limits: [{tokens: 4, per: day}]\n"
        + "    user_limits: [{tokens: 3, per: day}]\n"
        + "  ops: {limits: [{requests: 2, per: day}]}\n"
        + "limits: [{tokens: 9, per: total}]\n"
        + "notify:\n"
        + f"{entry(more='format: slack, at: [95%, 50%]')}\n"
        + f"{entry(more='format: slack, at: [80%], teams: [search], name: b')}\n"
        + f"{entry(more='format: slack, at: [70%], events: [key], name: c')}"
    )
    made = snapshot(loaded(text, ENVIRON).settings)

    def parts(limits: tuple[Limit, ...]) -> dict[int, tuple[int, ...]]:
        return {limit.amount: limit.notify_at for limit in limits if limit.is_quota}

    assert parts(made.teams["search"].caller.limits) == {9: (50, 95), 5: (50, 80, 95)}
    assert parts(made.teams["ops"].caller.limits) == {9: (50, 95), 2: (50, 95)}
    assert parts(made.teams["search"].caller.user_limits) == {3: (50, 80, 95)}
    for caller in made.callers.values():
        assert parts(caller.limits)[4] == (50, 80, 95)
    assert all(not limit.notify_at for limit in made.limits_of() if limit.is_rate)
