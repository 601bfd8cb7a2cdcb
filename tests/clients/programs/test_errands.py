"""Agents and programs with SDKs do the same through the gateway as straight to the model server, or better."""

from __future__ import annotations

import pytest

from tests.clients.programs.programs import AGENTS, LIBRARIES, Program, required
from tests.clients.programs.scripted_answers import GEMINI, MESSAGES
from tests.clients.programs.scripted_upstream import Fault
from tests.clients.programs.side_by_side import (
    Bench,
    assert_charged,
    assert_no_turn_aborted,
    assert_untouched,
    outcome,
    straight,
    through,
)

PATIENCE_S = 150.0
"""For a whole errand: starting an agent takes seconds, and many run at once."""

GIVING_UP_S = 25.0
"""Some agents try for ever when they are refused; what they have done until then is compared."""

# The tests of one library run in one worker, since its interpreter imports the library once.
libraries = [pytest.param(program, marks=pytest.mark.xdist_group(str(program))) for program in LIBRARIES]
every = pytest.mark.parametrize("program", [*AGENTS, *libraries], ids=str)


@every
async def test_a_turn_with_a_tool_reaches_the_upstream_untouched(program: Program, bench: Bench) -> None:
    required(program)
    async with straight() as direct, through() as gated:
        by_itself, ran = await bench.both(program, direct, gated, patience_s=PATIENCE_S)
        assert (ran.code, by_itself.code) == (0, 0), ran.printed
        assert outcome(ran, gated) == outcome(by_itself, direct)
        assert outcome(ran, gated).finished, ran.printed
        assert (ran.folder / "errand.txt").exists() is program.calls_tools
        assert_untouched(gated)
        await assert_charged(gated)


@every
async def test_a_spent_quota_ends_the_turn_with_its_reason(program: Program, bench: Bench) -> None:
    required(program)
    team = {"limits": [{"requests": 1, "per": "day"}]}
    async with straight(faults=(_spent(program),) * 50) as direct, through(team=team) as gated:
        assert gated.gateway is not None
        assert (await gated.gateway.chat()).status == 200
        by_itself, ran = await bench.both(program, direct, gated, patience_s=GIVING_UP_S)
        assert outcome(ran, gated).at_least_as_good_as(outcome(by_itself, direct)), (ran, by_itself)
        assert len(gated.upstream.seen) == 1
        if ran.code is not None:
            assert "requests-per-day" in ran.printed or "quota" in ran.printed.lower()


@every
async def test_a_rate_is_waited_for(program: Program, bench: Bench) -> None:
    required(program)
    team = {"limits": [{"requests": 30, "per": "minute", "burst": 1}]}
    async with straight(faults=(_slow_down(program),)) as direct, through(team=team) as gated:
        by_itself, ran = await bench.both(program, direct, gated, patience_s=PATIENCE_S)
        if outcome(by_itself, direct).finished:
            assert outcome(ran, gated).finished, ran.printed
        await assert_charged(gated)


@every
async def test_a_stream_that_is_cut_is_survived_as_well_as_ever(program: Program, bench: Bench) -> None:
    required(program)
    cut = (Fault(cut=True, of_turns=program.calls_tools),)
    async with straight(faults=cut) as direct, through(faults=cut) as gated:
        by_itself, ran = await bench.both(program, direct, gated, patience_s=GIVING_UP_S)
        assert outcome(ran, gated).at_least_as_good_as(outcome(by_itself, direct)), (ran, by_itself)
        await assert_no_turn_aborted(gated)


@every
async def test_a_refusal_of_the_models_own_is_shown_as_the_upstream_said_it(program: Program, bench: Bench) -> None:
    required(program)
    refused = (_moderated(program),) * 50
    async with straight(faults=refused) as direct, through(faults=refused) as gated:
        by_itself, ran = await bench.both(program, direct, gated, patience_s=GIVING_UP_S)
        assert outcome(ran, gated).at_least_as_good_as(outcome(by_itself, direct)), (ran, by_itself)
        if by_itself.code is not None:
            assert ("BLOCKED-9" in ran.printed) is ("BLOCKED-9" in by_itself.printed)
        assert_untouched(gated, ended=ran.code is not None)


def _spent(program: Program) -> Fault:
    message = "You exceeded your current quota, please check your plan and billing details."
    if program.api is MESSAGES:
        return Fault(429, "rate_limit_error", message, {"x-should-retry": "false"})
    return Fault(429, "RESOURCE_EXHAUSTED" if program.api is GEMINI else "insufficient_quota", message)


def _slow_down(program: Program) -> Fault:
    kind = {MESSAGES: "rate_limit_error", GEMINI: "RESOURCE_EXHAUSTED"}.get(program.api, "rate_limit_exceeded")
    message = "Rate limit reached: try again in 2s."
    return Fault(429, kind, message, {"retry-after": "2"}, of_turns=program.calls_tools)


def _moderated(program: Program) -> Fault:
    kind = {MESSAGES: "invalid_request_error", GEMINI: "INVALID_ARGUMENT"}.get(program.api, "content_policy_violation")
    return Fault(400, kind, "Your request was rejected by the safety system (BLOCKED-9).")
