"""The APIs whose answers are no text: embeddings, moderations, rerank, images, speech, transcriptions.

OpenAI's API reference, but for rerank, which is Jina's and vLLM's.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

from gateway.demo.turn import Turn

Json = dict[str, Any]

DIMENSIONS = 8
MAX_DIMENSIONS = 4_096
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SPEECH = b"ID3\x04" + bytes(1_020)


def embeddings(turn: Turn) -> Json:
    """A vector for each input; as base64 of little-endian floats if that is asked for."""
    vector = [1.0 / (1 + place) for place in range(min(MAX_DIMENSIONS, turn.asked.dimensions or DIMENSIONS))]
    packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    embedding = packed if turn.asked.encoding_format == "base64" else vector
    rows = [{"object": "embedding", "index": index, "embedding": embedding} for index in range(_inputs(turn))]
    return _reporting(turn, {"object": "list", "data": rows, "model": turn.asked.model}, _prompt_usage(turn))


def moderations(turn: Turn) -> Json:
    verdict = {"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.0}}
    return {"id": f"modr-{turn.number:024x}", "model": turn.asked.model, "results": [verdict] * _inputs(turn)}


def rerank(turn: Turn) -> Json:
    documents = turn.asked.documents or []
    results = [
        {"index": index, "document": {"text": text}, "relevance_score": 1.0 / (1 + index)}
        for index, text in enumerate(documents)
    ]
    answer = {"id": f"rerank-{turn.number:024x}", "model": turn.asked.model, "results": results}
    return _reporting(turn, answer, _prompt_usage(turn))


def images(turn: Turn) -> Json:
    answer = {"created": turn.created, "data": [{"b64_json": PIXEL}] * turn.choices}
    return _reporting(turn, answer, _typed_usage(turn))


def speech(_turn: Turn) -> bytes:
    return SPEECH


def transcription(turn: Turn) -> Json:
    return _reporting(turn, {"text": "".join(turn.tokens)}, {"type": "tokens", **_typed_usage(turn)})


def _reporting(turn: Turn, answer: Json, usage: Json) -> Json:
    return answer if turn.script.usage == "never" else answer | {"usage": usage}


def _prompt_usage(turn: Turn) -> Json:
    counts = turn.counts()
    return {"prompt_tokens": counts.prompt, "total_tokens": counts.total}


def _typed_usage(turn: Turn) -> Json:
    counts = turn.counts()
    return {"input_tokens": counts.prompt, "output_tokens": counts.completion, "total_tokens": counts.total}


def _inputs(turn: Turn) -> int:
    """How many texts were asked about; a list of token numbers is one."""
    given = turn.asked.input
    return len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
