"""Answers for many consoles: how often they are computed, for whom, and when not again."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Mapping

import pytest

from gateway.core.errors import NoWorker
from gateway.runtime.tasks import BackgroundTasks
from gateway.web.admin_routes import AdminRequest, AdminResponse, json_response
from gateway.web.shared_answers import COMPARISON, FRESH_S, KEPT_BYTES, LONGEST_S, SharedAnswers
from tests.event_loop_turns import tasks_ended

OVERVIEW = "/admin/v1/overview"


class Api:
    """An admin API whose answers say how many it has computed; computing takes `takes_s` of its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.takes_s = 0.0
        self.computed: list[AdminRequest] = []
        self.ended = 0
        self.strangers: set[str] = set()
        self.status = 200
        self.filling = ""
        self.failure: Exception | None = None
        self.going_on = asyncio.Event()
        self.going_on.set()
        self.failed: list[str] = []
        self.tasks = BackgroundTasks(lambda what, _error: self.failed.append(what))
        self.shared = SharedAnswers(self._answer, self._refuse, self.tasks, lambda: self.now)

    async def _answer(self, request: AdminRequest) -> AdminResponse:
        self.computed.append(request)
        number = len(self.computed)
        await self.going_on.wait()
        self.ended += 1
        self.now += self.takes_s
        if self.failure is not None:
            raise self.failure
        if request.headers.get("cookie", "") in self.strangers:
            return json_response(401, {"error": {}})
        return json_response(self.status, {"number": number, "filling": self.filling})

    async def _refuse(self, request: AdminRequest) -> AdminResponse | None:
        return json_response(401, {"error": {}}) if request.headers.get("cookie", "") in self.strangers else None

    async def ask(self, path: str = OVERVIEW, **headers: str) -> AdminResponse:
        """As the browser of a viewer does."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.get(path, {"x-gateway-console": "1", **named})

    async def get(self, path: str, headers: Mapping[str, str], method: str = "GET") -> AdminResponse:
        path, _, query = path.partition("?")
        parameters = dict(part.split("=") for part in query.split("&") if part)
        return await self.shared.answer(AdminRequest(method, path, parameters, dict(headers)))


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    yield made
    await made.tasks.close()


def number_in(response: AdminResponse) -> int:
    number: int = json.loads(response.body)["number"]
    return number


async def until_computing(api: Api, count: int = 1) -> None:
    async with asyncio.timeout(5):
        while len(api.computed) < count:
            await asyncio.sleep(0)


async def test_fifty_consoles_cost_one_computation(api: Api) -> None:
    api.going_on.clear()
    asked = asyncio.gather(*[api.ask(cookie=f"viewer {number}") for number in range(50)])
    await until_computing(api)
    api.going_on.set()
    await asked
    api.now += FRESH_S - 0.1
    later = [await api.ask(cookie=f"viewer {number}") for number in range(50)]
    assert {number_in(response) for response in [*asked.result(), *later]} == {1}
    assert len(api.computed) == 1


async def test_an_answer_that_is_no_longer_fresh_is_computed_again(api: Api) -> None:
    first = await api.ask()
    api.now += FRESH_S
    assert number_in(await api.ask()) == number_in(first) + 1


@pytest.mark.parametrize(("takes_s", "kept_s"), [(0.05, FRESH_S), (1.0, 20.0), (30.0, LONGEST_S)])
async def test_what_takes_long_is_kept_longer(api: Api, takes_s: float, kept_s: float) -> None:
    began, api.takes_s = api.now, takes_s
    await api.ask()
    api.now = began + kept_s - 0.01
    same = await api.ask()
    assert (number_in(same), dict(same.headers)["age"]) == (1, str(int(kept_s - 0.01)))
    api.now = began + kept_s
    assert number_in(await api.ask()) == 2


async def test_each_question_has_its_own_answer(api: Api) -> None:
    paths = ("overview?minutes=60", "overview?minutes=180", "usage?by=day&since=7d", "usage?since=7d&by=day")
    assert [number_in(await api.ask(f"/admin/v1/{path}")) for path in paths] == [1, 2, 3, 3]


async def test_after_a_change_the_next_answer_shows_it(api: Api) -> None:
    await api.ask()
    await api.get("/admin/v1/grants", {"x-gateway-console": "1"}, "POST")
    assert number_in(await api.ask()) == 3
    api.shared.forget()
    assert number_in(await api.ask()) == 4


@pytest.mark.parametrize("method", ["POST", "HEAD"])
async def test_a_stranger_ends_nobodys_answer(api: Api, method: str) -> None:
    first = await api.ask(cookie="signed in")
    api.strangers.add("stranger")
    refused = await api.get(OVERVIEW, {"x-gateway-console": "1", "cookie": "stranger"}, method)
    assert refused.status == 401
    assert number_in(await api.ask(cookie="signed in")) == number_in(first)


async def test_a_change_is_made_to_its_end_though_its_client_leaves(api: Api) -> None:
    first = await api.ask()
    api.going_on.clear()
    leaving = asyncio.ensure_future(api.get("/admin/v1/grants", {"authorization": "Bearer t"}, "POST"))
    await until_computing(api, 2)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert api.ended == number_in(first)
    api.going_on.set()
    await tasks_ended("change by an operator")
    assert api.ended == 2
    assert number_in(await api.ask()) == 3


async def test_a_comparison_ends_with_its_client_and_changes_nothing(api: Api) -> None:
    first = await api.ask()
    api.going_on.clear()
    leaving = asyncio.ensure_future(api.get(COMPARISON, {"authorization": "Bearer t"}, "POST"))
    await until_computing(api, 2)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    api.going_on.set()
    await tasks_ended("change by an operator")
    assert api.ended == 1
    assert number_in(await api.ask()) == number_in(first)


async def test_what_was_begun_before_a_change_answers_nobody_who_asks_after_it(api: Api) -> None:
    api.going_on.clear()
    early = asyncio.ensure_future(api.ask())
    await until_computing(api)
    api.shared.forget()
    late = asyncio.ensure_future(api.ask())
    await until_computing(api, 2)
    api.going_on.set()
    assert (number_in(await early), number_in(await late)) == (1, 2)
    assert number_in(await api.ask()) == 2


async def test_a_program_with_the_token_shares_nothing(api: Api) -> None:
    await api.ask()
    for expected in (2, 3):
        response = await api.get(OVERVIEW, {"authorization": "Bearer t", "x-gateway-console": "1"})
        assert (number_in(response), "etag" in dict(response.headers)) == (expected, False)
    assert number_in(await api.get(OVERVIEW, {})) == 4


@pytest.mark.parametrize("page", ["keys", "grants", "requests", "audit", "config", "session"])
async def test_where_people_act_nothing_is_shared(api: Api, page: str) -> None:
    assert [number_in(await api.ask(f"/admin/v1/{page}")) for _ in range(2)] == [1, 2]


async def test_a_stranger_gets_nothing_of_what_is_kept(api: Api) -> None:
    await api.ask(cookie="signed in")
    api.strangers.add("stranger")
    assert (await api.ask(cookie="stranger")).status == 401
    assert len(api.computed) == 1


async def test_a_viewer_who_signs_out_meanwhile_takes_the_answer_from_nobody(api: Api) -> None:
    api.going_on.clear()
    leaving = asyncio.ensure_future(api.ask(cookie="leaving"))
    await until_computing(api)
    staying = asyncio.ensure_future(api.ask(cookie="staying"))
    await asyncio.sleep(0)
    api.strangers.add("leaving")
    api.going_on.set()
    assert ((await leaving).status, (await staying).status) == (401, 200)


async def test_a_viewer_who_leaves_takes_the_answer_from_nobody(api: Api) -> None:
    api.going_on.clear()
    leaving = asyncio.ensure_future(api.ask())
    await until_computing(api)
    staying = asyncio.ensure_future(api.ask())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    api.going_on.set()
    assert (number_in(await staying), len(api.computed)) == (1, 1)


async def test_an_answer_that_a_viewer_has_is_not_sent_again(api: Api) -> None:
    first = await api.ask()
    tag = dict(first.headers)["etag"]
    same = await api.ask(if_none_match=tag)
    assert (same.status, same.body, dict(same.headers)["etag"]) == (304, b"", tag)
    api.now += FRESH_S
    assert (await api.ask(if_none_match=tag)).status == 200, "its number is another one"


async def test_an_answer_is_compressed_once_for_all(api: Api) -> None:
    api.filling = "figures " * 1_000
    compressed, again = [await api.ask(accept_encoding="gzip, deflate, br") for _ in range(2)]
    plain = await api.ask()
    assert compressed.body is again.body
    assert dict(compressed.headers)["content-encoding"] == "gzip"
    assert gzip.decompress(compressed.body) == plain.body
    assert "content-encoding" not in dict(plain.headers)


async def test_errors_are_not_kept(api: Api) -> None:
    api.status = 503
    assert [(await api.ask()).status for _ in range(2)] == [503, 503]
    api.status, api.failure = 200, NoWorker("No worker answers now.", retry_after_ms=1000)
    assert (await api.ask()).status == 503
    api.failure = None
    assert number_in(await api.ask()) == 4


async def test_a_defect_is_not_kept_either(api: Api) -> None:
    api.failure = ZeroDivisionError("a defect")
    with pytest.raises(ZeroDivisionError):
        await api.ask()
    api.failure = None
    assert number_in(await api.ask()) == 2
    assert api.failed == ["background task answer consoles failed"]


async def test_what_is_kept_is_bounded(api: Api) -> None:
    api.filling = "x" * (KEPT_BYTES // 3)
    for minutes in range(1, 6):
        await api.ask(f"{OVERVIEW}?minutes={minutes}")
    assert sum(each.size for each in api.shared._answers.values()) <= KEPT_BYTES
    api.filling = ""
    for minutes in range(1, 200):
        await api.ask(f"{OVERVIEW}?minutes={minutes}")
    assert len(api.shared._answers) <= 32
