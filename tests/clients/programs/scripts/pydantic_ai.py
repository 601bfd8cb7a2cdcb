from pathlib import Path

agent = Agent(model)


@agent.tool_plain
def run_errand(city: str) -> str:
    """Runs the errand in a city."""
    Path("errand.txt").write_text(city)
    return "It is done."


print(agent.run_sync("Run the errand.").output)
