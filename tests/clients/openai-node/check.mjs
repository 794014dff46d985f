// OpenAI's SDK for JavaScript.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, recipe, tried } from "./tried.mjs";

const messages = [{ role: "user", content: "What is the capital of France?" }];
const short = { model: MODEL, messages, temperature: 0, max_tokens: 24 };
const City = z.object({ name: z.string(), is_capital: z.boolean() });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { name: "get_weather", description: "The weather of a city", parameters };
const client = new OpenAI({ maxRetries: 0 });
const agent = new OpenAI({ baseURL: `${SCRIPTED_URL}/v1`, apiKey: SCRIPTED_KEY, maxRetries: 0 });

await tried("the recipe", () => {
  const said = recipe();
  expect(said.includes("Paris"), said);
});

await tried("chat", async () => {
  const said = await client.chat.completions.create(short);
  expect(said.choices[0].message.content.includes("Paris") && said.usage.completion_tokens > 2, said);
});

await tried("chat, streamed, with usage", async () => {
  const stream = client.chat.completions.stream({ ...short, stream_options: { include_usage: true } });
  let parts = 0;
  for await (const _ of stream) parts += 1;
  const said = await stream.finalChatCompletion();
  expect(parts > 3 && said.choices[0].message.content.includes("Paris") && said.usage.total_tokens > 10, said);
});

await tried("structured output (Zod)", async () => {
  const wanted = { ...short, max_tokens: 80, response_format: zodResponseFormat(City, "city") };
  const said = await client.chat.completions.parse(wanted);
  expect(typeof said.choices[0].message.parsed.is_capital === "boolean", said);
});

await tried("tools that are run, streamed, scripted", async () => {
  const run = agent.chat.completions.runTools({
    model: SCRIPTED_MODEL,
    messages: [{ role: "user", content: 'CALL get_weather {"city": "Paris"}' }],
    tools: [{
      type: "function",
      function: { ...weather, parse: JSON.parse, function: ({ city }) => `21 degrees in ${city}` },
    }],
    stream: true,
  });
  const said = await run.finalContent();
  expect(said.includes("21 degrees in Paris"), said);
});

await tried("embeddings (base64)", async () => {
  const found = await client.embeddings.create({ model: MODEL, input: ["a cat", "the stock exchange"] });
  expect(found.data.length === 2 && found.data[0].embedding.length > 100, found.data.length);
});

await tried("responses, streamed", async () => {
  const stream = client.responses.stream({
    model: MODEL, input: "What is the capital of France?", max_output_tokens: 24, temperature: 0, store: false,
  });
  const said = await stream.finalResponse();
  expect(said.output_text.includes("Paris"), said);
});

await tried("errors (wrong key, unknown model)", async () => {
  const cases = [
    [new OpenAI({ apiKey: "sk-wrong", maxRetries: 0 }), MODEL, OpenAI.AuthenticationError],
    [client, "other", OpenAI.NotFoundError],
  ];
  for (const [asked, model, kind] of cases) {
    const error = await asked.chat.completions.create({ model, messages }).catch((error) => error);
    expect(error instanceof kind, error);
  }
});
