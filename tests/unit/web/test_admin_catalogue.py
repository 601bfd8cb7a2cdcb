from __future__ import annotations

import hashlib

from gateway.web.admin_catalogue import models, teams
from tests.event_loop_turns import turns_during
from tests.whole_gateway import whole_gateway

KEYS, TEAMS, MODELS = 8_000, 40, 200


def key(number: int) -> dict[str, str]:
    return {"name": f"k{number}", "sha256": hashlib.sha256(b"%d" % number).hexdigest()}


async def test_a_list_of_thousands_of_keys_and_models_leaves_the_loop_to_others() -> None:
    routes = [{"upstream": "up1"}]
    more_models = {f"m{number}": {"routes": routes} for number in range(MODELS)}
    more_teams = {f"t{team}": {"keys": [key(number) for number in range(team, KEYS, TEAMS)]} for team in range(TEAMS)}
    async with whole_gateway("http://127.0.0.1:9/v1", teams=more_teams, models=more_models) as gateway:
        services = gateway.gateway.services
        shown, turns = await turns_during(teams(services, {}))
        assert sum(len(team["keys"]) for team in shown["data"]) >= KEYS
        assert turns >= KEYS // 2_000 + TEAMS // 2
        shown, turns = await turns_during(models(services, {}))
        assert len(shown["data"]) >= MODELS
        assert turns >= MODELS // 50
