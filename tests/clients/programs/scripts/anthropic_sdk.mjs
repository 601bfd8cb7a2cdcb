import { writeFileSync } from "node:fs";

const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ name: "run_errand", input_schema }];
const messages = [{ role: "user", content: "Run the errand." }];
let answer;
for (;;) {
  answer = await client.messages.stream({ model, max_tokens: 1000, messages, tools }).finalMessage();
  const calls = answer.content.filter((block) => block.type === "tool_use");
  if (calls.length === 0) break;
  writeFileSync("errand.txt", JSON.stringify(calls[0].input));
  const results = calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: "It is done." }));
  messages.push({ role: "assistant", content: answer.content }, { role: "user", content: results });
}
console.log(answer.content[0].text);
