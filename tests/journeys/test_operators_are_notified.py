"""Operators are told without asking: of quotas that are being used up, of files that were refused, of keys that end."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.demo import DemoUpstream
from tests.gateway_process import gateway_process
from tests.webhook_receiver import webhook_receiver
from tests.whole_gateway import configuration, key_settings, whole_gateway

QUOTA = {"limits": [{"requests": 10, "per": "month", "name": "monthly"}], "owner": "search-leads@example.com"}


@pytest.fixture
async def upstream() -> AsyncIterator[DemoUpstream]:
    async with DemoUpstream() as running:
        yield running


async def test_a_quota_that_crosses_thresholds_is_told_of_once_each(upstream: DemoUpstream) -> None:
    async with webhook_receiver() as receiver:
        notify = [receiver.channel(at=["50%", "80%", "100%"])]
        async with whole_gateway(upstream.base_url, team=QUOTA, notify=notify) as gateway:
            for _ in range(4):
                assert (await gateway.chat()).status == 200
            assert receiver.attempts == []
            for _ in range(6):
                assert (await gateway.chat()).status == 200
            await receiver.until(lambda: len(receiver.taken) == 3)
            assert (await gateway.chat()).status == 429
            told = sorted((each.json for each in receiver.attempts), key=lambda each: each["data"]["percent"])
            assert [each["data"]["percent"] for each in told] == [50, 80, 100]
            first = told[0]
            assert first["type"] == "quota.threshold"
            shown = {name: first["data"][name] for name in ("name", "scope", "subject", "team", "owner", "amount")}
            assert shown == {
                "name": "monthly",
                "scope": "team",
                "subject": "search",
                "team": "search",
                "owner": "search-leads@example.com",
                "amount": 10,
            }
            assert first["data"]["message"].startswith("50 % of limit monthly of team search is used: ")
            assert all(each.is_signed for each in receiver.attempts)
            assert len({each.id for each in receiver.attempts}) == 3
            assert 'gateway_notifications_total{channel="json-1",outcome="sent"} 3' in await gateway.metrics()


async def test_end_users_who_use_up_their_quotas_are_gathered(upstream: DemoUpstream) -> None:
    team = {"user_limits": [{"requests": 2, "per": "day", "name": "each"}]}
    admin = {"listen": "127.0.0.1:0", "token": "operators-token"}
    headers = {"authorization": "Bearer operators-token"}
    async with webhook_receiver() as receiver:
        notify = [receiver.channel(at=["100%"])]
        async with whole_gateway(upstream.base_url, team=team, notify=notify, admin=admin) as gateway:
            for user in ("ada", "grace", "linus"):
                for _ in range(2):
                    assert (await gateway.chat(user=user)).status == 200
                assert (await gateway.chat(user=user)).status == 429
            await gateway.ended()
            page = await gateway.request("GET", "/admin/v1/notifications", admin=True, headers=headers)
            (waiting,) = page.json["data"]
            assert (waiting["type"], waiting["state"], receiver.attempts) == ("quota.users", "waiting", [])


async def test_slack_gets_a_sentence(upstream: DemoUpstream) -> None:
    async with webhook_receiver() as receiver:
        channel = {key: value for key, value in receiver.channel(format="slack").items() if key != "secret"}
        async with whole_gateway(upstream.base_url, team=QUOTA, notify=[{**channel, "at": ["10%"]}]) as gateway:
            await gateway.chat()
            await receiver.until(lambda: bool(receiver.taken))
            (told,) = receiver.attempts
            assert told.json["text"].startswith("10 % of limit monthly of team search is used: 1 of 10 requests.")
            assert told.json["text"].endswith("Owner: search-leads@example.com.")
            assert "webhook-signature" not in told.headers


async def test_what_is_refused_comes_again_with_the_same_id(upstream: DemoUpstream) -> None:
    async with (
        webhook_receiver(lambda attempt: 500 if attempt == 1 else 200) as receiver,
        whole_gateway(upstream.base_url, team=QUOTA, notify=[receiver.channel(at=["10%"])]) as gateway,
    ):
        await gateway.chat()
        await receiver.until(lambda: bool(receiver.taken))
        assert [each.status for each in receiver.attempts] == [500, 200]
        assert len({each.id for each in receiver.attempts}) == 1
        assert all(each.is_signed for each in receiver.attempts)
        (logged,) = [line for line in gateway.lines if line["event"] == "notification not delivered"]
        assert (logged["channel"], logged["why"]) == ("json-1", "it was answered with 500")


async def test_a_redirect_is_not_followed(upstream: DemoUpstream) -> None:
    async with (
        webhook_receiver(lambda attempt: 302 if attempt == 1 else 200) as receiver,
        whole_gateway(upstream.base_url, team=QUOTA, notify=[receiver.channel(at=["10%"])]) as gateway,
    ):
        await gateway.chat()
        await receiver.until(lambda: bool(receiver.taken))
        assert {each.path for each in receiver.attempts} == {"/hook-Xb7Tq2Lm9Rz4"}


async def test_each_channel_gets_what_it_wants(upstream: DemoUpstream) -> None:
    async with webhook_receiver() as receiver:
        notify = [
            receiver.channel(name="all", at=["10%", "20%"]),
            receiver.channel(name="search", at=["20%"], teams=["sea*"]),
            receiver.channel(name="other", at=["10%"], teams=["ops"]),
            receiver.channel(name="keys", at=["10%"], events=["key"]),
        ]
        teams = {"search": {"keys": [key_settings()], **QUOTA}, "ops": {}}
        everybody = [{"requests": 20, "per": "total"}]
        async with whole_gateway(upstream.base_url, teams=teams, limits=everybody, notify=notify) as gateway:
            for _ in range(2):
                assert (await gateway.chat()).status == 200
            await receiver.until(lambda: len(receiver.taken) == 4)
            told = sorted((each.json["data"]["scope"], each.json["data"]["percent"]) for each in receiver.taken)
            assert told == [("organisation", 10), ("team", 10), ("team", 20), ("team", 20)]


async def test_a_key_that_ends_within_a_week_is_told_of(upstream: DemoUpstream) -> None:
    soon, later = [(datetime.now(UTC) + timedelta(days=days)).isoformat() for days in (6, 8)]
    keys = [key_settings(expires=soon), key_settings("later", "gw_another-key", expires=later)]
    async with webhook_receiver() as receiver:
        notify = [receiver.channel()]
        async with whole_gateway(upstream.base_url, team={"keys": keys}, notify=notify):
            await receiver.until(lambda: bool(receiver.taken))
            (told,) = receiver.attempts
            assert (told.json["type"], told.json["data"]["name"]) == ("key.expiring", "search-test")


async def test_a_configuration_that_is_refused_is_told_of_once(upstream: DemoUpstream, tmp_path: Path) -> None:
    async with webhook_receiver() as receiver:
        config = configuration(upstream.base_url, notify=[receiver.channel()])
        async with gateway_process(config=config, folder=tmp_path) as gateway:
            (tmp_path / "gateway.yaml").write_text("listen: 1")
            await receiver.until(lambda: bool(receiver.taken))
            gateway.signal(signal.SIGHUP)
            await gateway.times("configuration rejected", 2)
            (told,) = receiver.attempts
            assert told.json["type"] == "configuration.refused"
            assert any("listen" in problem for problem in told.json["data"]["problems"])
