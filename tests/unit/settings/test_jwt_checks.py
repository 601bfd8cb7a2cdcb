from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.settings.configurations import TEAM, VALID, assert_refused, assert_warned, loaded

HEAD = VALID + TEAM + "jwt:\n"
KEYS = "https://idp.example/keys"


def entry(*, issuer: str = "https://idp.example/", jwks: str = KEYS, more: str = "default_team: search") -> str:
    return f"  - {{issuer: {issuer}, audience: llm, jwks: {jwks}, {more}}}"


def test_an_identity_provider_is_read_with_its_defaults() -> None:
    (written,) = loaded(HEAD + entry()).settings.jwt
    assert (written.audience, written.user, written.groups) == (("llm",), "sub", "groups")
    assert "RS256" in written.algorithms
    assert loaded(HEAD + entry()).warnings == ()
    several = HEAD + entry().replace("audience: llm", "audience: [llm, api://x]")
    assert loaded(several).settings.jwt[0].audience == ("llm", "api://x")


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES256K", "rs256"])
def test_no_algorithm_is_allowed_that_proves_nothing(algorithm: str) -> None:
    with pytest.raises(Exception, match=r"jwt\[0\]\.algorithms: must be a list of some of RS256,.*HMAC"):
        loaded(HEAD + entry(more=f"default_team: search, algorithms: [{algorithm}]"))


def test_teams_must_exist_and_there_must_be_one() -> None:
    named = HEAD + entry(more="teams: {platform: serach}, default_team: sales") + " # !"
    assert_refused(
        named,
        "jwt[0].teams.platform: is not a team of this configuration; did you mean search?",
        "jwt[0].default_team: is not a team of this configuration; known here: search",
    )
    assert_refused(
        HEAD + entry(more="user: email") + " # !",
        "jwt[0]: puts its tokens into no team; set `teams`, `team` or `default_team`",
    )
    assert_refused(
        VALID + "jwt:\n" + entry() + " # !", "jwt[0].default_team: is not a team of this configuration; there is none"
    )
    loaded(HEAD + entry(more="team: team"))


def test_an_issuer_is_written_once() -> None:
    assert_refused(
        f"{HEAD}{entry()}\n{entry()} # !",
        "jwt[1].issuer: is the issuer of another entry; write one, with a list in `audience`",
    )


def test_an_audience_is_needed() -> None:
    for audience in ("[]", "''", "{}"):
        text = HEAD + entry().replace("audience: llm", f"audience: {audience}") + " # !"
        assert_refused(
            text,
            "jwt[0].audience: must be the name of this gateway at the identity provider: text, or a list of some",
        )


def test_a_file_of_keys_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    assert_refused(HEAD + entry(jwks=str(file)) + " # !", "jwt[0].jwks: cannot be read: No such file or directory")
    file.write_text("{}")
    loaded(HEAD + entry(jwks=str(file)))


def test_an_issuer_that_is_a_url_is_enough() -> None:
    def alone(issuer: str) -> str:
        return HEAD + f"  - {{issuer: '{issuer}', audience: llm, default_team: search}}"

    for issuer in ("https://idp.example", "https://idp.example/"):
        (written,) = loaded(alone(issuer)).settings.jwt
        assert written.keys_place == "https://idp.example/.well-known/openid-configuration"
    (written,) = loaded(alone("https://idp.example/realms/acme")).settings.jwt
    assert written.keys_place == "https://idp.example/realms/acme/.well-known/openid-configuration"
    assert_refused(
        alone("acme") + " # !",
        "jwt[0].issuer: is not a URL, so it has no discovery document that names the keys; set `jwks`",
    )
    assert_warned(
        alone("http://idp.example") + " # !",
        "jwt[0].issuer: is fetched without TLS: an attacker on the network can replace the keys, and make tokens; use https://",
    )


def test_keys_without_tls_are_worth_a_warning() -> None:
    assert_warned(
        HEAD + entry(jwks="http://idp.example/keys") + " # !",
        "jwt[0].jwks: is fetched without TLS: an attacker on the network can replace the keys, and make tokens; use https://",
    )
    assert loaded(HEAD + entry(jwks="http://127.0.0.1:9/keys")).warnings == ()


def test_a_team_without_keys_is_no_mistake_where_tokens_are_taken() -> None:
    text = VALID + "teams:\n  search: {}\n"
    assert len(loaded(text).warnings) == 1
    assert loaded(f"{text}jwt:\n{entry()}").warnings == ()
