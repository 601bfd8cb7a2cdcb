import { writeFileSync } from "node:fs";

const parametersJsonSchema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ functionDeclarations: [{ name: "run_errand", parametersJsonSchema }] }];
const chat = client.chats.create({ model, config: { tools } });
let message = "Run the errand.";
for (;;) {
  let text = "";
  let calls = [];
  for await (const chunk of await chat.sendMessageStream({ message })) {
    text += chunk.text ?? "";
    calls = calls.concat(chunk.functionCalls ?? []);
  }
  if (calls.length === 0) {
    console.log(text);
    break;
  }
  writeFileSync("errand.txt", JSON.stringify(calls[0].args));
  message = calls.map((call) => ({ functionResponse: { name: call.name, response: { output: "It is done." } } }));
}
