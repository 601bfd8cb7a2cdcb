from pathlib import Path

TOOL = {
    "name": "run_errand",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
messages = [{"role": "user", "content": "Run the errand."}]
while True:
    message = (
        completion(**gateway, messages=messages, tools=[{"type": "function", "function": TOOL}]).choices[0].message
    )
    if not message.tool_calls:
        break
    Path("errand.txt").write_text(message.tool_calls[0].function.arguments)
    messages.append(message.model_dump(exclude_none=True))
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "It is done."} for call in message.tool_calls]
print(message.content)
