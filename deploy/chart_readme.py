"""The chart's README.md: a table of every value, its kind from values.schema.json and its comment from values.yaml.

`python -m deploy.chart_readme` writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from deploy.values_schema import CHART, values_schema

README = CHART / "README.md"

HEAD = """# The chart of inducta-gateway

```sh
helm install gateway helm/inducta-gateway -n llm --create-namespace -f helm/inducta-gateway/examples/try.yaml
```

docs/deploy.md walks through it: how the image is built and brought to a cluster, Redis, secrets, what happens when a
pod goes. `examples/` has values to begin from. `values.schema.json` checks every value, and `config` by the gateway's
own schema, before anything is installed.

| value | kind | default | meaning |
| --- | --- | --- | --- |
"""
_KEY = re.compile(r"^( *)([A-Za-z]\w*):(.*?)(?:\s#\s(.*))?$")
_CONTINUED = re.compile(r"^\s{20,}#\s(.*)$")
_LONGEST = 60

Json = dict[str, Any]


def text() -> str:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    comments = _comments()
    rows = _rows("", values, values_schema()["properties"])
    lines = (f"| `{name}` | {kind} | {default} | {comments.get(name, '')} |\n" for name, kind, default in rows)
    return HEAD + "".join(lines)


def _rows(prefix: str, values: Json, schema: Json) -> Iterator[tuple[str, str, str]]:
    for name, value in values.items():
        path = f"{prefix}{name}"
        known = schema.get(name, {})
        if path == "config":
            yield path, "the gateway's configuration", "`listen`, `admin`, `store`, `drain`"
        elif isinstance(value, dict) and known.get("properties"):
            yield from _rows(f"{path}.", value, known["properties"])
        else:
            yield path, _kind(known), _default(value)


def _kind(schema: Json) -> str:
    if "enum" in schema:
        return ", ".join(f"`{each}`" if each else "empty" for each in schema["enum"])
    kinds = [each["type"] for each in schema.get("anyOf", [schema]) if "type" in each]
    return " or ".join({"object": "mapping", "array": "list"}.get(kind, kind) for kind in kinds)


def _default(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return f"`{written}`" if len(written) <= _LONGEST else "see values.yaml"


def _comments() -> dict[str, str]:
    """The comment of each value, by its path."""
    found: dict[str, str] = {}
    path: list[str] = []
    last = ""
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        if more := _CONTINUED.match(line):
            found[last] = f"{found.get(last, '')} {more[1]}".strip()
        elif key := _KEY.match(line):
            path = [*path[: len(key[1]) // 2], key[2]]
            last = ".".join(path)
            if key[4]:
                found[last] = key[4].replace("|", "\\|")
    return found


if __name__ == "__main__":
    README.write_text(text(), encoding="utf-8")
