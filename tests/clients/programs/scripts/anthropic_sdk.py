from pathlib import Path

TOOLS = [
    {
        "name": "run_errand",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
messages = [{"role": "user", "content": "Run the errand."}]
while True:
    with client.messages.stream(model=model, max_tokens=1000, messages=messages, tools=TOOLS) as stream:
        answer = stream.get_final_message()
    calls = [block for block in answer.content if block.type == "tool_use"]
    if not calls:
        break
    Path("errand.txt").write_text(str(calls[0].input))
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "It is done."} for call in calls]
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
print(answer.content[0].text)
