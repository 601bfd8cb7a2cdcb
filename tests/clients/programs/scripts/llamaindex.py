import asyncio
from pathlib import Path

from llama_index.core.agent.workflow import FunctionAgent


def run_errand(city: str) -> str:
    """Runs the errand in a city."""
    Path("errand.txt").write_text(city)
    return "It is done."


async def main() -> None:
    print(await FunctionAgent(tools=[run_errand], llm=model).run("Run the errand."))


asyncio.run(main())
