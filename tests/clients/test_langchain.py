"""LangChain's `ChatOpenAI` against a whole gateway."""

from __future__ import annotations

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from gateway.demo import DemoScript, DemoUpstream
from tests.whole_gateway import KEY, MODEL, WholeGateway, whole_gateway

SAID = "Hello! This is the demo"


def _model(gateway: WholeGateway) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=gateway.url, api_key=SecretStr(KEY), max_retries=0)


async def test_an_answer_comes_with_its_usage() -> None:
    async with DemoUpstream(DemoScript(chunks=5)) as upstream, whole_gateway(upstream.base_url) as gateway:
        message = await _model(gateway).ainvoke("Say hello.")
        assert message.content == SAID
        assert message.usage_metadata is not None
        assert message.usage_metadata["output_tokens"] == 5


async def test_a_stream_adds_up_to_the_answer_and_its_usage_is_counted_once() -> None:
    async with DemoUpstream(DemoScript(chunks=5)) as upstream, whole_gateway(upstream.base_url) as gateway:
        for asks in (True, False):
            chunks = [chunk async for chunk in _model(gateway).astream("Say hello.", stream_usage=asks)]
            whole = chunks[0]
            for chunk in chunks[1:]:
                whole += chunk
            assert whole.content == SAID
            assert whole.usage_metadata is not None
            assert whole.usage_metadata["output_tokens"] == 5


async def test_tools_that_are_bound_are_called() -> None:
    def look_up(text: str) -> str:
        """Look something up."""
        return text

    async with DemoUpstream(DemoScript(chunks=5)) as upstream, whole_gateway(upstream.base_url) as gateway:
        message = await _model(gateway).bind_tools([look_up]).ainvoke("Say hello.")
        assert [call["name"] for call in message.tool_calls] == ["look_up"]
        assert set(message.tool_calls[0]["args"]) == {"text"}
