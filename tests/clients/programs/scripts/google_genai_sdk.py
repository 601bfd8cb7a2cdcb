from pathlib import Path


def run_errand(city: str) -> str:
    """Runs the errand in a city."""
    Path("errand.txt").write_text(city)
    return "It is done."


chat = client.chats.create(model=model, config={"tools": [run_errand]})
print(chat.send_message("Run the errand.").text)
