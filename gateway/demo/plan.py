"""Plans an answer from a request and a script: its tokens and what they cost.

Every API writes its answers from the plan, so all rules of counting are in this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any, NamedTuple

import msgspec

from gateway.demo.script import DemoScript

BYTES_PER_TOKEN = 4
MAX_CHOICES = 128

TEXT = (
    "Hello! This is the demo upstream: it plays a language model, so that you can watch an answer stream "
    "through the gateway, word by word, without a key or a GPU. Every request is authenticated, limited and "
    "metered on its way. Grüße, 你好 🎉 goodbye!"
)
WORDS = tuple(word if index == 0 else f" {word}" for index, word in enumerate(TEXT.split()))


class ScriptedRequest(msgspec.Struct):
    """What the demo upstream reads of a request, whichever API it belongs to."""

    model: str = ""
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    system: Any = None
    instructions: Any = None
    messages: Any = None
    prompt: Any = None
    input: Any = None
    query: Any = None
    documents: list[Any] | None = None
    text_1: Any = None
    text_2: Any = None
    queries: Any = None
    contents: Any = None
    content: Any = None
    requests: list[Any] | None = None
    systemInstruction: Any = None  # noqa: N815
    generationConfig: dict[str, Any] | None = None  # noqa: N815
    dimensions: int | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    encoding_format: str | None = None
    demo: dict[str, Any] | None = None


class TokenCounts(NamedTuple):
    """The tokens of an answer. `total` is their sum unless the script says otherwise."""

    prompt: int
    completion: int
    total: int
    cached: int
    reasoning: int

    @property
    def output(self) -> int:
        """The output on a bill: with what `total` has above the sum of its parts."""
        return max(self.completion, self.total - self.prompt)


class PlannedAnswer(NamedTuple):
    """`tokens` are the texts of one choice, `tool` the function that they are arguments of, if any."""

    number: int
    created: int
    request: ScriptedRequest
    script: DemoScript
    tokens: tuple[str, ...]
    capped: bool
    tool: str
    prompt_tokens: int

    @property
    def choices(self) -> int:
        return max(1, min(MAX_CHOICES, self.request.n or 1))

    @property
    def asks_usage(self) -> bool:
        options = self.request.stream_options
        return options is not None and options.get("include_usage") is True

    def counts(self, delivered: int | None = None) -> TokenCounts:
        """The usage to report once so many tokens are delivered; None: all of them."""
        script = self.script
        completion = len(self.tokens) * self.choices if delivered is None else delivered
        completion += script.reasoning_tokens
        if script.completion_tokens is not None:
            completion = script.completion_tokens
        total = self.prompt_tokens + completion if script.total_tokens is None else script.total_tokens
        return TokenCounts(self.prompt_tokens, completion, total, script.cached_tokens, script.reasoning_tokens)


def plan_answer(
    number: int, created: int, request: ScriptedRequest, script: DemoScript, speaks: bool = True
) -> PlannedAnswer:
    """With `speaks` False the answer has no tokens."""
    if not speaks:
        script = msgspec.structs.replace(script, chunks=0)
    cap = min(_caps(request), default=script.chunks)
    tool = called_tool(request, script)
    prompt = count_prompt(request) if script.prompt_tokens is None else script.prompt_tokens
    tokens = texts(min(cap, script.chunks), script.chunk_bytes, tool != "")
    return PlannedAnswer(number, created, request, script, tokens, cap < script.chunks, tool, prompt)


def _caps(request: ScriptedRequest) -> list[int]:
    named = (
        request.max_tokens,
        request.max_completion_tokens,
        request.max_output_tokens,
        (request.generationConfig or {}).get("maxOutputTokens"),
    )
    return [cap for cap in named if isinstance(cap, int)]


def count_prompt(request: ScriptedRequest) -> int:
    """One token for every four bytes of the text that the model reads, rounded up; at least one."""
    read = (
        request.system,
        request.instructions,
        request.messages,
        request.prompt,
        request.input,
        request.query,
        request.documents,
        request.text_1,
        request.text_2,
        request.queries,
        request.systemInstruction,
        request.contents,
        request.content,
        request.requests,
    )
    size = sum(len(text.encode()) for part in read for text in _strings(part))
    return max(1, -(-size // BYTES_PER_TOKEN))


def _strings(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, list):
        for item in part:
            yield from _strings(item)
    elif isinstance(part, dict):
        for name in ("text", "content", "input", "parts"):
            yield from _strings(part.get(name))


def texts(count: int, chunk_bytes: int, arguments: bool) -> tuple[str, ...]:
    """The texts of this many tokens: words, or the pieces of a JSON object if they are a tool's arguments."""
    words = WORDS
    if chunk_bytes:
        words = tuple(word + "." * (chunk_bytes - len(word.encode())) for word in words)
    words = words[:count] if count <= len(words) else tuple(islice(cycle(words), count))
    if arguments and count > 1:
        words = ('{"text": "', *words[: count - 2], '"}')
    return words


def called_tool(request: ScriptedRequest, script: DemoScript) -> str:
    """The name of the first tool offered, unless the request forbids a call, or the script one that is not demanded.
    The result of a tool is answered in words, so that an agent does not call tools without end."""
    if not request.tools or request.tool_choice == "none" or _ends_with_a_result(request):
        return ""
    if script.no_tools and not _is_demanded(request.tool_choice):
        return ""
    tool = request.tools[0] if isinstance(request.tools[0], dict) else {}
    declared = tool.get("functionDeclarations")
    function = declared[0] if isinstance(declared, list) and declared else tool.get("function")
    named = function if isinstance(function, dict) else tool
    return str(named.get("name") or "tool")


def _is_demanded(choice: Any) -> bool:
    if isinstance(choice, dict):
        choice = choice.get("type")
    return choice not in (None, "auto", "none")


def _ends_with_a_result(request: ScriptedRequest) -> bool:
    """Whether the last message or item of the conversation is what a tool has returned, in any API's words."""
    conversation = next((each for each in (request.messages, request.input, request.contents) if each), None)
    last = conversation[-1] if isinstance(conversation, list) else None
    if not isinstance(last, dict):
        return False
    parts = last.get("content") or last.get("parts")
    return any(_is_result(part) for part in (last, *(parts if isinstance(parts, list) else ())))


def _is_result(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    is_output = isinstance(kind, str) and (kind == "tool_result" or kind.endswith("_call_output"))
    return is_output or part.get("role") == "tool" or "functionResponse" in part


class DemoEvent(msgspec.Struct, frozen=True, gc=False):
    """It delivers `tokens` of output; `reports` says that it carries usage; `name` is its type."""

    payload: dict[str, Any]
    tokens: int = 0
    reports: bool = False
    name: str = ""
