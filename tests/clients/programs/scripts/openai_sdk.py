from pathlib import Path

TOOL = {
    "name": "run_errand",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
messages = [{"role": "user", "content": "Run the errand."}]
while True:
    tools = [{"type": "function", "function": TOOL}]
    with client.chat.completions.stream(model=model, messages=messages, tools=tools) as stream:
        message = stream.get_final_completion().choices[0].message
    if not message.tool_calls:
        break
    Path("errand.txt").write_text(message.tool_calls[0].function.arguments)
    calls = [{"id": call.id, "type": "function", "function": call.function.to_dict()} for call in message.tool_calls]
    messages.append({"role": "assistant", "content": None, "tool_calls": calls})
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "It is done."} for call in message.tool_calls]
print(message.content)
