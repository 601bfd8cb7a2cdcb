"""Upstreams are asked whether they are well, and `Health` is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from time import monotonic

import pytest

from gateway.core.health import Change, Health
from gateway.core.snapshot import Target, Timeouts, Upstream
from gateway.runtime.tasks import BackgroundTasks
from gateway.upstream.client import HttpClient
from gateway.upstream.health_checks import HealthCheck, HealthChecks
from tests.contract.upstream.asking import ASK, CHUNKED_HEAD, chunk, plain, unexpected
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import Step, hears, resets, says, sees_the_client_leave, sets

OFTEN_S = 0.05
SELDOM_S = 0.4
SUCCEEDED = plain(b"{}")
SICK = plain(b"{}", status=b"503 Service Unavailable")


class RealClock:
    def now_ms(self) -> int:
        raise AssertionError("checks need no wall time")

    def monotonic(self) -> float:
        return monotonic()


class Ward:
    """What is believed of the upstreams, and an event for each change."""

    def __init__(self) -> None:
        self.health = Health(self._note)
        self.changed = asyncio.Event()
        self.changes: list[str] = []

    def _note(self, change: Change) -> None:
        self.changes.append(change.after)
        self.changed.set()

    async def changes_to(self, after: str) -> None:
        async with asyncio.timeout(5):
            while after not in self.changes:
                self.changed.clear()
                await self.changed.wait()

    def share(self, upstream: Upstream) -> float:
        return self.health.share(Target(upstream, "m"), monotonic())


@pytest.fixture
async def ward() -> Ward:
    return Ward()


@pytest.fixture
async def checks(client: HttpClient, ward: Ward) -> AsyncIterator[HealthChecks]:
    made = HealthChecks(client, ward.health, RealClock(), Random(1), BackgroundTasks(unexpected))
    yield made
    await made.close()


def answering(*answers: bytes) -> list[Step]:
    return [step for answer in answers for step in (hears, says(answer))]


async def test_an_upstream_that_is_sick_goes_down_and_comes_up_again(
    checks: HealthChecks, ward: Ward, play: Play
) -> None:
    server = await play(answering(SUCCEEDED, SICK, SICK, SICK, SUCCEEDED, SUCCEEDED))
    upstream = server.upstream()
    checks.keep([HealthCheck(upstream, "/models", OFTEN_S)])
    await ward.changes_to("down")
    assert ward.share(upstream) == 0.0
    await ward.changes_to("up")
    assert ward.share(upstream) > 0.0
    assert {request.line for request in server.requests} == {"GET /v1/models HTTP/1.1"}


@pytest.mark.parametrize(
    ("sick", "why"),
    [
        ([hears, resets], "hung_up"),
        ([hears, says(plain(b"{}", status=b"404 Not Found"))], "404"),
        ([hears, says(plain(b"{}", status=b"401 No"))], "401"),
    ],
    ids=["resets", "no such path", "no such key"],
)
async def test_whatever_is_no_good_answer_is_sick(
    checks: HealthChecks, ward: Ward, play: Play, sick: list[Step], why: str
) -> None:
    server = await play(sick * 20, *[sick] * 20)
    upstream = server.upstream()
    checks.keep([HealthCheck(upstream, "/health", OFTEN_S)])
    await ward.changes_to("down")
    assert ward.health.view([upstream], monotonic())[0].failed_checks == {why: 3}


async def test_an_upstream_that_does_not_answer_is_sick(checks: HealthChecks, ward: Ward, play: Play) -> None:
    server = await play(*[[hears, sees_the_client_leave]] * 5)
    upstream = server.upstream()
    checks.keep([HealthCheck(upstream, "/health", OFTEN_S)])
    await ward.changes_to("down")
    assert ward.health.view([upstream], monotonic())[0].failed_checks == {"timeout": 3}


async def test_a_busy_upstream_is_not_sick(checks: HealthChecks, ward: Ward, play: Play) -> None:
    enough = asyncio.Event()
    busy = plain(b"{}", status=b"429 Too Many Requests")
    server = await play([*answering(*[busy] * 10), sets(enough)])
    checks.keep([HealthCheck(server.upstream(), "/health", OFTEN_S)])
    await enough.wait()
    assert ward.changes == []


async def test_an_upstream_whose_connections_are_all_in_use_is_not_sick(
    checks: HealthChecks, ward: Ward, client: HttpClient, play: Play
) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"on")), sees_the_client_leave])
    # A check waits for a connection as long as one may take to be made, which must be enough on a busy machine.
    upstream = server.upstream(max_connections=1, timeouts=Timeouts(connect=SELDOM_S / 2))
    answer = await client.send(upstream, ASK)
    checks.keep([HealthCheck(upstream, "/health", SELDOM_S)])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4 * SELDOM_S):
            await ward.changed.wait()
    assert ward.changes == []
    answer.abandon()


async def test_checks_that_stay_go_on_and_those_that_go_are_forgotten(
    checks: HealthChecks, ward: Ward, play: Play
) -> None:
    sick, other = await play(answering(*[SICK] * 50)), await play(answering(*[SUCCEEDED] * 50))
    check, second = (
        HealthCheck(sick.upstream("sick"), "/health", OFTEN_S),
        HealthCheck(other.upstream("well"), "/health", OFTEN_S),
    )
    checks.keep([check, second])
    await ward.changes_to("down")
    checks.keep([check])
    assert ward.share(check.upstream) == 0.0
    checks.keep([second])
    assert ward.share(check.upstream) == 1.0
    assert sick.connections == 1


class FailingHealth(Health):
    """Raises at the first result that it is told."""

    def __init__(self) -> None:
        super().__init__(lambda change: None)
        self.problems: list[str] = []
        self.told_again = asyncio.Event()

    def checked(self, upstream: Upstream, problem: str, now: float) -> None:
        self.problems.append(problem)
        if len(self.problems) == 1:
            raise KeyError(upstream)
        self.told_again.set()


async def test_a_check_that_fails_of_itself_is_logged_counted_and_made_again(client: HttpClient, play: Play) -> None:
    logged: list[str] = []
    counted: list[str] = []
    health = FailingHealth()
    tasks = BackgroundTasks(lambda doing, error: logged.append(doing), counted.append, first_pause_s=0.001)
    server = await play(answering(*[SUCCEEDED] * 20))
    checks = HealthChecks(client, health, RealClock(), Random(1), tasks)
    checks.keep([HealthCheck(server.upstream(), "/health", OFTEN_S)])
    await asyncio.wait_for(health.told_again.wait(), 5)
    assert logged == ["background task health_check failed"]
    assert counted == ["health_check"]
    await checks.close()


async def test_closing_ends_every_check(client: HttpClient, ward: Ward, play: Play) -> None:
    heard = asyncio.Event()
    server = await play([hears, sets(heard), sees_the_client_leave])
    checks = HealthChecks(client, ward.health, RealClock(), Random(1), BackgroundTasks(unexpected))
    checks.keep([HealthCheck(server.upstream(), "/health", 60)])
    await heard.wait()
    await checks.close()
    await server.sees_the_client_gone()
    await checks.close()
