"""A panel and a dashboard as Grafana 11 and later read them (dashboard schema version 39).

A panel says what it shows, in which unit, and by which queries; where it stands follows from the order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]

COLUMNS = 24
HEIGHTS = {"stat": 4, "timeseries": 8, "bargauge": 8, "table": 8}
SOURCE: Json = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Panel:
    """`queries` maps legends to expressions. `warn` and `alarm` colour what is above them."""

    title: str
    unit: str
    queries: dict[str, str]
    about: str
    kind: Literal["stat", "timeseries", "bargauge", "table"] = "timeseries"
    width: int = 8
    stacked: bool = False
    warn: float | None = None
    alarm: float | None = None
    most: float | None = None

    def json(self, number: int, column: int, row: int) -> Json:
        return {
            "id": number,
            "title": self.title,
            "description": self.about,
            "type": self.kind,
            "datasource": SOURCE,
            "gridPos": {"h": HEIGHTS[self.kind], "w": self.width, "x": column, "y": row},
            "targets": self._targets(),
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
            **({"transformations": _AS_TABLE} if self.kind == "table" else {}),
        }

    def _targets(self) -> list[Json]:
        lettered = zip(self.queries.items(), "ABCDEF", strict=False)
        return [self._target(legend, query, letter) for (legend, query), letter in lettered]

    def _target(self, legend: str, expression: str, letter: str) -> Json:
        latest = self.kind in {"table", "bargauge"}
        return {
            "refId": letter,
            "datasource": SOURCE,
            "expr": expression,
            "legendFormat": legend,
            "instant": latest,
            "range": not latest,
            "format": "table" if self.kind == "table" else "time_series",
        }

    def _defaults(self) -> Json:
        steps: list[Json] = [{"color": "green", "value": None}]
        if self.warn is not None:
            steps.append({"color": "orange", "value": self.warn})
        if self.alarm is not None:
            steps.append({"color": "red", "value": self.alarm})
        defaults: Json = {"unit": self.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
        if self.most is not None:
            defaults["max"] = self.most
        if self.kind == "timeseries":
            defaults["custom"] = {
                "fillOpacity": 30 if self.stacked else 0,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "showPoints": "never",
                "lineWidth": 1,
            }
        return defaults

    def _options(self) -> Json:
        latest = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        options: dict[str, Json] = {
            "stat": {"reduceOptions": latest, "graphMode": "area", "colorMode": "value"},
            "bargauge": {"reduceOptions": latest, "orientation": "horizontal", "displayMode": "basic"},
            "timeseries": {
                "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "max"], "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            },
            "table": {"sortBy": [{"displayName": "Value", "desc": True}]},
        }
        return options[self.kind]


_AS_TABLE: list[Json] = [{"id": "organize", "options": {"excludeByName": {"Time": True}}}]


@dataclass(frozen=True)
class Dashboard:
    """Rows of panels under headings. `choices` are the labels that the reader can narrow everything to."""

    uid: str
    title: str
    about: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    choices: tuple[tuple[str, str], ...] = ()
    refresh: str = "30s"
    tags: tuple[str, ...] = field(default=("inducta-gateway",))

    def json(self) -> Json:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.about,
            "tags": list(self.tags),
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": self.refresh,
            "time": {"from": "now-6h", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "annotations": {"list": []},
            "links": [_OTHERS],
            "templating": {"list": [_SOURCES, *(_choice(*choice) for choice in self.choices)]},
            "panels": self._panels(),
        }

    def _panels(self) -> list[Json]:
        panels: list[Json] = []
        line = 0
        for heading, row in self.rows:
            panels.append(_heading(len(panels) + 1, heading, line))
            line, column, tallest = line + 1, 0, 0
            for panel in row:
                if column + panel.width > COLUMNS:
                    line, column, tallest = line + tallest, 0, 0
                panels.append(panel.json(len(panels) + 1, column, line))
                column, tallest = column + panel.width, max(tallest, HEIGHTS[panel.kind])
            line += tallest
        return panels


_OTHERS: Json = {
    "type": "dashboards",
    "title": "Gateway",
    "tags": ["inducta-gateway"],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
}
_SOURCES: Json = {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _heading(number: int, title: str, line: int) -> Json:
    place = {"h": 1, "w": COLUMNS, "x": 0, "y": line}
    return {"id": number, "title": title, "type": "row", "collapsed": False, "gridPos": place, "panels": []}


def _choice(label: str, metric: str) -> Json:
    query = f"label_values({metric}, {label})"
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": label},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }
