from pathlib import Path


@function_tool
def run_errand(city: str) -> str:
    """Runs the errand in a city."""
    Path("errand.txt").write_text(city)
    return "It is done."


agent = Agent(name="Errands", model=model, tools=[run_errand])
print(Runner.run_sync(agent, "Run the errand.").final_output)
