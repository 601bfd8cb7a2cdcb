"""The APIs whose answers are not text: embeddings, moderations, rerank, score, images, speech, transcriptions.

They follow OpenAI's API reference, except for rerank, which is Jina's and vLLM's and in its second version Cohere's
(https://docs.cohere.com/reference/rerank), and for score, which is vLLM's
(https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#score-api).
"""

from __future__ import annotations

import base64
import struct

from gateway.core.json_object import JsonObject
from gateway.demo.plan import PlannedAnswer

DIMENSIONS = 8
MAX_DIMENSIONS = 4_096
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SPEECH = b"ID3\x04" + bytes(1_020)


def embeddings(answer: PlannedAnswer) -> JsonObject:
    """A vector for each input; as base64 of little-endian floats if the request asks for that."""
    vector = vector_of(answer)
    packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    embedding = packed if answer.request.encoding_format == "base64" else vector
    rows = [{"object": "embedding", "index": index, "embedding": embedding} for index in range(_inputs(answer))]
    return _reporting(answer, {"object": "list", "data": rows, "model": answer.request.model}, _prompt_usage(answer))


def vector_of(answer: PlannedAnswer) -> list[float]:
    return [1.0 / (1 + place) for place in range(min(MAX_DIMENSIONS, answer.request.dimensions or DIMENSIONS))]


def moderations(answer: PlannedAnswer) -> JsonObject:
    verdict = {"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.0}}
    return {"id": f"modr-{answer.number:024x}", "model": answer.request.model, "results": [verdict] * _inputs(answer)}


def rerank(answer: PlannedAnswer) -> JsonObject:
    results = [
        {"index": index, "document": {"text": text}, "relevance_score": 1.0 / (1 + index)}
        for index, text in enumerate(answer.request.documents or [])
    ]
    body = {"id": f"rerank-{answer.number:024x}", "model": answer.request.model, "results": results}
    return _reporting(answer, body, _prompt_usage(answer))


def rerank_v2(answer: PlannedAnswer) -> JsonObject:
    """It returns no documents, and is billed by searches."""
    ranks = range(len(answer.request.documents or []))
    results = [{"index": index, "relevance_score": 1.0 / (1 + index)} for index in ranks]
    units = {} if answer.script.usage == "never" else {"billed_units": {"search_units": 1}}
    meta = {"api_version": {"version": "2"}, **units}
    return {"id": f"rerank-{answer.number:024x}", "results": results, "meta": meta}


def score(answer: PlannedAnswer) -> JsonObject:
    """A score for each pair; a single text is paired with each of several."""
    request = answer.request
    sides = (request.text_1, request.text_2, request.queries, request.documents)
    pairs = max(len(side) if isinstance(side, list) else 1 for side in sides)
    body = {
        "id": f"score-{answer.number:024x}",
        "object": "list",
        "created": answer.created,
        "model": request.model,
        "data": [{"index": index, "object": "score", "score": 1.0 / (1 + index)} for index in range(pairs)],
    }
    return _reporting(answer, body, _prompt_usage(answer))


def images(answer: PlannedAnswer) -> JsonObject:
    body = {"created": answer.created, "data": [{"b64_json": PIXEL}] * answer.choices}
    return _reporting(answer, body, _typed_usage(answer))


def speech(_turn: PlannedAnswer) -> bytes:
    return SPEECH


def transcription(answer: PlannedAnswer) -> JsonObject:
    return _reporting(answer, {"text": "".join(answer.tokens)}, {"type": "tokens", **_typed_usage(answer)})


def _reporting(answer: PlannedAnswer, body: JsonObject, usage: JsonObject) -> JsonObject:
    return body if answer.script.usage == "never" else body | {"usage": usage}


def _prompt_usage(answer: PlannedAnswer) -> JsonObject:
    counts = answer.counts()
    return {"prompt_tokens": counts.prompt, "total_tokens": counts.total}


def _typed_usage(answer: PlannedAnswer) -> JsonObject:
    counts = answer.counts()
    return {"input_tokens": counts.prompt, "output_tokens": counts.completion, "total_tokens": counts.total}


def _inputs(answer: PlannedAnswer) -> int:
    """How many texts the request has; a list of token numbers is one."""
    given = answer.request.input
    return len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
