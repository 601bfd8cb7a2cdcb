import { writeFileSync } from "node:fs";

import { stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const runErrand = tool({
  description: "Runs the errand in a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    writeFileSync("errand.txt", city);
    return "It is done.";
  },
});
const result = streamText({
  model,
  prompt: "Run the errand.",
  tools: { run_errand: runErrand },
  stopWhen: stepCountIs(5),
  onError: ({ error }) => {
    console.error(error);
    process.exitCode = 1;
  },
});
for await (const part of result.textStream) process.stdout.write(part);
