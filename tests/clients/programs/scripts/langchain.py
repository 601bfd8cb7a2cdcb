from pathlib import Path

from langchain.agents import create_agent


def run_errand(city: str) -> str:
    """Runs the errand in a city."""
    Path("errand.txt").write_text(city)
    return "It is done."


agent = create_agent(model, [run_errand])
answer = agent.invoke({"messages": [{"role": "user", "content": "Run the errand."}]})
print(answer["messages"][-1].content)
