from pathlib import Path

TOOL = {
    "name": "run_errand",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
asked = {"model": model, "tools": [{"type": "function", "function": TOOL}], "random_seed": 7, "safe_prompt": False}
messages = [{"role": "user", "content": "Run the errand."}]
message = client.chat.complete(messages=messages, **asked).choices[0].message
Path("errand.txt").write_text(str(message.tool_calls[0].function.arguments))
done = {"role": "tool", "name": "run_errand", "content": "It is done."}
results = [{**done, "tool_call_id": call.id} for call in message.tool_calls]
with client.chat.stream(messages=[*messages, message, *results], **asked) as stream:
    print("".join(event.data.choices[0].delta.content or "" for event in stream if event.data.choices))
