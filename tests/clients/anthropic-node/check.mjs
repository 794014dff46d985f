// Anthropic's SDK for JavaScript, against /v1/messages.

import Anthropic from "@anthropic-ai/sdk";
import { MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, recipe, tried } from "./tried.mjs";

const messages = [{ role: "user", content: "What is the capital of France?" }];
const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ name: "get_weather", description: "The weather of a city", input_schema }];
const client = new Anthropic({ maxRetries: 0 });
const agent = new Anthropic({ baseURL: SCRIPTED_URL, apiKey: SCRIPTED_KEY, maxRetries: 0 });

await tried("the recipe", () => {
  const said = recipe();
  expect(said.includes("Paris"), said);
});

await tried("messages, streamed", async () => {
  const stream = client.messages.stream({ model: MODEL, messages, max_tokens: 24, temperature: 0 });
  let parts = 0;
  stream.on("text", () => { parts += 1; });
  const said = await stream.finalMessage();
  expect(parts > 3 && said.content[0].text.includes("Paris") && said.usage.output_tokens > 2, said);
});

await tried("tool use and its result, streamed, scripted", async () => {
  const asked = { role: "user", content: 'CALL get_weather {"city": "Paris"}' };
  const common = { model: SCRIPTED_MODEL, max_tokens: 200, tools };
  const used = await agent.messages.stream({ ...common, messages: [asked] }).finalMessage();
  const use = used.content.find((block) => block.type === "tool_use");
  expect(use?.input.city === "Paris" && used.stop_reason === "tool_use", used);
  const result = { type: "tool_result", tool_use_id: use.id, content: "21 degrees" };
  const talk = [asked, { role: "assistant", content: used.content }, { role: "user", content: [result] }];
  const said = await agent.messages.create({ ...common, messages: talk });
  expect(said.content[0].text.includes("21 degrees"), said);
});

await tried("errors (wrong key, unknown model)", async () => {
  const cases = [
    [new Anthropic({ apiKey: "sk-wrong", maxRetries: 0 }), MODEL, Anthropic.AuthenticationError],
    [client, "other", Anthropic.NotFoundError],
  ];
  for (const [asked, model, kind] of cases) {
    const error = await asked.messages.create({ model, messages, max_tokens: 1 }).catch((error) => error);
    expect(error instanceof kind, error);
  }
});
