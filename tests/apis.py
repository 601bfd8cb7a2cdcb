"""The APIs that the gateway serves, as tests ask them: one smallest request each, and how each tells an error."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from gateway.core.endpoints import Endpoint
from gateway.core.usage import Usage
from tests.forms import FORM_TYPE, field, file, form
from tests.whole_gateway import KEY, MODEL, Json, Reply, WholeGateway

TEXT = "Say hello to everybody."


class Api(NamedTuple):
    """`fields` is a body without its model. `cap` names the member that caps an answer, "" where it has no output."""

    name: str
    path: str
    fields: Json
    cap: str = ""
    streams: bool = False

    def body(self, **changes: object) -> Json:
        return {"model": MODEL, **self.fields, **changes}

    async def ask(self, gateway: WholeGateway, *, key: str = KEY, **changes: object) -> Reply:
        return await gateway.post(json.dumps(self.body(**changes)).encode(), path=self.path, key=key)


CHAT = Api("chat", "/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}, "max_tokens", True)
COMPLETIONS = Api("completions", "/v1/completions", {"prompt": TEXT}, "max_tokens", True)
RESPONSES = Api("responses", "/v1/responses", {"input": TEXT}, "max_output_tokens", True)
MESSAGES = Api(
    "messages",
    "/v1/messages",
    {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 100},
    "max_tokens",
    True,
)
EMBEDDINGS = Api("embeddings", "/v1/embeddings", {"input": TEXT})
MODERATIONS = Api("moderations", "/v1/moderations", {"input": TEXT})
RERANK = Api("rerank", "/v1/rerank", {"query": TEXT, "documents": ["hello", "goodbye"]})
IMAGES = Api("images", "/v1/images/generations", {"prompt": TEXT})
SPEECH = Api("speech", "/v1/audio/speech", {"input": TEXT, "voice": "alloy"})

APIS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS, MODERATIONS, RERANK, IMAGES, SPEECH)
SPEAKING = tuple(api for api in APIS if api.cap)
"""Those whose answers have output, plain or streamed."""


QUESTION = "How many moons are there?"


class SmallApi(NamedTuple):
    """A row of the endpoint table whose answers are no words of a model. `answer` is what an upstream gives, `used`
    what of it is charged."""

    name: str
    path: str
    fields: Json
    answer: Json
    used: Usage

    @property
    def body(self) -> Json:
        return {"model": MODEL, **self.fields}


COUNT_TOKENS = SmallApi(
    "messages.count_tokens",
    "/v1/messages/count_tokens",
    {"messages": [{"role": "user", "content": QUESTION}], "system": "Be kind."},
    {"input_tokens": 14},
    Usage(),
)
INPUT_TOKENS = SmallApi(
    "responses.input_tokens",
    "/v1/responses/input_tokens",
    {"input": QUESTION},
    {"object": "response.input_tokens", "input_tokens": 11},
    Usage(),
)
COMPACT = SmallApi(
    "responses.compact",
    "/v1/responses/compact",
    {"input": [{"role": "user", "content": QUESTION}]},
    {
        "object": "response.compaction",
        "output": [{"type": "compaction", "encrypted_content": "gAAA"}],
        "usage": {"input_tokens": 117, "output_tokens": 193, "total_tokens": 310},
    },
    Usage(117, 193),
)
SCORE = SmallApi(
    "score",
    "/v1/score",
    {"text_1": QUESTION, "text_2": ["Two.", "None."]},
    {"data": [{"index": 0, "score": 0.9}], "usage": {"prompt_tokens": 18, "total_tokens": 18}},
    Usage(18),
)
RERANK_V2 = SmallApi(
    "rerank.v2",
    "/v2/rerank",
    {"query": QUESTION, "documents": ["Two.", "None."]},
    {"results": [], "meta": {"billed_units": {"search_units": 1}}},
    Usage(searches=1),
)
SMALL_APIS = (COUNT_TOKENS, INPUT_TOKENS, COMPACT, SCORE, RERANK_V2)
COUNTING = (COUNT_TOKENS, INPUT_TOKENS)


_FIELDS: dict[str, Json] = {
    "chat": {"messages": [{"role": "user", "content": TEXT}]},
    "completions": {"prompt": TEXT},
    "messages": {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 100},
    "rerank": {"query": TEXT, "documents": ["hello"]},
    "score": {"text_1": TEXT, "text_2": "hello"},
    "gemini": {"contents": [{"parts": [{"text": TEXT}]}], "requests": [], "content": {}},
    "images": {"prompt": TEXT},
    "audio": {"input": TEXT, "voice": "alloy"},
}
"""By the first word of an endpoint's name; elsewhere `input` is all."""


class SmallestRequest(NamedTuple):
    """A request that any row of the endpoint table takes."""

    path: str
    body: bytes
    content_type: str

    @classmethod
    def of(cls, endpoint: Endpoint) -> SmallestRequest:
        path = re.sub(r"\{\w+_id\}", "resp_1", endpoint.path.replace("{model}", MODEL))
        if endpoint.takes_form:
            return cls(path, form(field("model", MODEL), field("prompt", TEXT), file(b"RIFF")), FORM_TYPE)
        fields = _FIELDS.get(endpoint.name.partition(".")[0], {"input": TEXT})
        return cls(path, json.dumps({"model": MODEL, **fields}).encode(), "application/json")


def name_of(value: object) -> str | None:
    """How a test's parameter stands in its name."""
    return value.name if isinstance(value, Api | SmallApi) else None


def told_error(api: Api, reply: Reply) -> Json:
    """The error in an answer, which must have the shape of its API."""
    assert reply.headers["content-type"] == "application/json"
    told = reply.json
    assert told.keys() <= {"type", "error", "limit"}
    assert told.get("type") == ("error" if api is MESSAGES else None)
    error: Json = told["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def error_event(api: Api, event: bytes) -> Json:
    """The error in a stream's last event, which must have the shape of its API."""
    *kind, data, end, rest = event.decode().split("\n")
    assert (end, rest) == ("", "")
    told: Json = json.loads(data.removeprefix("data: "))
    if api is RESPONSES:
        assert (kind, told.pop("type")) == (["event: error"], "error")
        return told
    if api is MESSAGES:
        assert (kind, told["type"]) == (["event: error"], "error")
    else:
        assert kind == []
    error: Json = told["error"]
    return error
