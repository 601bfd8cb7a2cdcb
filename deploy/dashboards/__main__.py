"""Write every dashboard's JSON to where the Helm chart and docker-compose.yml take it from."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.dashboards.overview import OVERVIEW
from deploy.dashboards.panel import Dashboard
from deploy.dashboards.store import STORE
from deploy.dashboards.teams import TEAMS
from deploy.dashboards.upstreams import UPSTREAMS

SHIPPED = Path(__file__).parents[2] / "helm" / "inducta-gateway" / "dashboards"
DASHBOARDS: dict[str, Dashboard] = {"overview": OVERVIEW, "teams": TEAMS, "upstreams": UPSTREAMS, "store": STORE}


def text(dashboard: Dashboard) -> str:
    return json.dumps(dashboard.json(), indent=1) + "\n"


def main() -> None:
    for name, dashboard in DASHBOARDS.items():
        (SHIPPED / f"{name}.json").write_text(text(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
