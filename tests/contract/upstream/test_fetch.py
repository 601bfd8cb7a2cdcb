"""Small questions to an upstream."""

from __future__ import annotations

import pytest

from gateway.core.errors import UpstreamAuthFailed, UpstreamBroke, UpstreamUnreachable
from gateway.upstream.client import HttpClient
from gateway.upstream.fetch import fetch_json, models_served
from tests.contract.upstream.asking import head, plain
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import hangs_up, hears, says, talks_until_the_client_leaves

MODELS = b'{"object":"list","data":[{"id":"openai/gpt-oss-120b","object":"model"},{"id":"tiny"}]}'


async def test_an_upstream_is_asked_for_its_models(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(plain(MODELS))])
    upstream = server.upstream(headers=(("authorization", "Bearer s3cret"),))
    assert await models_served(client, upstream) == ["openai/gpt-oss-120b", "tiny"]
    [request] = server.requests
    assert request.line == "GET /v1/models HTTP/1.1"
    assert request.header("authorization") == "Bearer s3cret"
    assert request.header("content-length") is None


@pytest.mark.parametrize("other", [b'{"id":null}', b'{"name":"x"}', b'"text"', b"null", b'{"id":5}'])
async def test_an_entry_without_an_id_leaves_the_others(client: HttpClient, play: Play, other: bytes) -> None:
    server = await play([hears, says(plain(b'{"data":[%b,{"id":"tiny"}]}' % other))])
    assert await models_served(client, server.upstream()) == ["tiny"]


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
async def test_credentials_that_are_refused_are_told_apart(client: HttpClient, play: Play, status: bytes) -> None:
    server = await play([hears, says(plain(b"{}", status=status))])
    with pytest.raises(UpstreamAuthFailed, match="check its api_key"):
        await fetch_json(client, server.upstream(), "/models")


@pytest.mark.parametrize(
    "answer",
    [
        plain(MODELS, status=b"500 Internal Server Error"),
        plain(b"<html>"),
        plain(b'["tiny"]'),
        plain(b'{"data":[{"name":"tiny"}]}'),
        plain(b""),
    ],
    ids=["status", "no JSON", "other shape", "no ids", "nothing"],
)
async def test_another_answer_is_no_list_of_models(client: HttpClient, play: Play, answer: bytes) -> None:
    server = await play([hears, says(answer)])
    with pytest.raises(UpstreamUnreachable, match="'inducta'"):
        await models_served(client, server.upstream())


async def test_an_answer_without_end_is_not_read_without_end(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(head()), talks_until_the_client_leaves])
    with pytest.raises(UpstreamUnreachable, match="more than"):
        await fetch_json(client, server.upstream(), "/models")
    await server.sees_the_client_gone()


async def test_an_answer_that_breaks_is_told_as_it_is(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(head(b"content-length: 100") + b"{"), hangs_up])
    with pytest.raises(UpstreamBroke):
        await fetch_json(client, server.upstream(), "/models")
