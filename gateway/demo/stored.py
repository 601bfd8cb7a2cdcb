"""What the demo upstream keeps: responses, conversations and their items, as in OpenAI's API reference.

Every client that knows an id may use it, as with a provider where all share one account: teams exist only in the
gateway.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from gateway.core.json_object import JsonObject
from gateway.demo import chat, responses
from gateway.demo.plan import PlannedAnswer

KEPT_MAX = 10_000
"""How many responses are kept, and how many conversations; the oldest are dropped first."""

_PATH = re.compile(r"/v1/(responses|conversations)/([^/]+)(?:/(items|input_items|cancel)(?:/([^/]+))?)?")


class KeptAnswer(NamedTuple):
    status: int
    payload: JsonObject


class DemoObjects:
    def __init__(self) -> None:
        self._responses: dict[str, PlannedAnswer] = {}
        self._conversations: dict[str, JsonObject] = {}
        self._items: dict[str, list[JsonObject]] = {}
        self._made = 0

    def keep(self, answer: PlannedAnswer) -> None:
        """Keep a response, unless its request says not to."""
        if answer.request.store is not False:
            _bounded(self._responses)[responses.response_id(answer)] = answer

    def missing(self, answer: PlannedAnswer) -> str:
        """The id that the request continues from, if it is not kept; else empty."""
        named = answer.request.conversation
        conversation = named.get("id") if isinstance(named, dict) else named
        for wanted, kept in (
            (answer.request.previous_response_id, self._responses),
            (conversation, self._conversations),
        ):
            if wanted and wanted not in kept:
                return str(wanted)
        return ""

    def answer(self, method: str, path: str, body: bytes, created: int) -> KeptAnswer | None:
        """None for a path of anything that is not kept."""
        if (method, path) == ("POST", "/v1/conversations"):
            return KeptAnswer(200, self._begin(_object(body), created))
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        kind, name, part, item = found.groups()
        if name not in (self._responses if kind == "responses" else self._conversations):
            return KeptAnswer(404, chat.error(404, f"There is nothing with the id {name!r}."))
        if kind == "responses":
            return self._response(method, name, part)
        return self._conversation(method, name, item, _object(body)) if part else self._whole(method, name, body)

    def _response(self, method: str, name: str, part: str | None) -> KeptAnswer | None:
        match method, part:
            case "GET", None:
                return KeptAnswer(200, responses.plain(self._responses[name]))
            case "GET", "input_items":
                return KeptAnswer(200, _list([{"type": "message", "role": "user", "content": []}]))
            case "POST", "cancel":
                return KeptAnswer(400, chat.error(400, "Cannot cancel a synchronous response."))
            case "DELETE", None:
                del self._responses[name]
                return KeptAnswer(200, {"id": name, "object": "response", "deleted": True})
        return None

    def _begin(self, given: JsonObject, created: int) -> JsonObject:
        self._made += 1
        name = f"conv_{self._made:024x}"
        made = {"id": name, "object": "conversation", "created_at": created, "metadata": given.get("metadata") or {}}
        _bounded(self._conversations)[name] = made
        self._items[name] = _items_of(given)
        return made

    def _whole(self, method: str, name: str, body: bytes) -> KeptAnswer | None:
        kept = self._conversations[name]
        match method:
            case "GET":
                return KeptAnswer(200, kept)
            case "POST":
                kept["metadata"] = _object(body).get("metadata") or {}
                return KeptAnswer(200, kept)
            case "DELETE":
                del self._conversations[name]
                return KeptAnswer(200, {"id": name, "object": "conversation.deleted", "deleted": True})
        return None

    def _conversation(self, method: str, name: str, item: str | None, given: JsonObject) -> KeptAnswer | None:
        items = self._items[name]
        if item is not None:
            found = [each for each in items if each.get("id") == item]
            if not found:
                return KeptAnswer(404, chat.error(404, f"There is no item {item!r}."))
            if method == "DELETE":
                items.remove(found[0])
                return KeptAnswer(200, self._conversations[name])
            return KeptAnswer(200, found[0]) if method == "GET" else None
        if method == "POST":
            items.extend(each | {"id": f"msg_{len(items):x}"} for each in _items_of(given))
        return KeptAnswer(200, _list(items)) if method in ("GET", "POST") else None


def _bounded(kept: dict[str, Any]) -> dict[str, Any]:
    if len(kept) >= KEPT_MAX:
        del kept[next(iter(kept))]
    return kept


def _items_of(given: JsonObject) -> list[JsonObject]:
    items = given.get("items")
    return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []


def _list(items: list[JsonObject]) -> JsonObject:
    ids = [item.get("id") for item in items]
    return {
        "object": "list",
        "data": items,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": False,
    }


def _object(body: bytes) -> JsonObject:
    try:
        return msgspec.json.decode(body, type=dict[str, Any]) if body else {}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
