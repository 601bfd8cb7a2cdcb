import { writeFileSync } from "node:fs";

const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const runErrand = (city) => {
  writeFileSync("errand.txt", JSON.stringify(city));
  return "It is done.";
};
const runner = client.chat.completions.runTools({
  model,
  stream: true,
  messages: [{ role: "user", content: "Run the errand." }],
  tools: [{ type: "function", function: { name: "run_errand", parameters, parse: JSON.parse, function: runErrand } }],
});
console.log(await runner.finalContent());
