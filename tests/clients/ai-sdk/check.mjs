// Vercel's AI SDK with its provider for compatible servers.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, recipe, tried } from "./tried.mjs";

const { OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey } = process.env;
const real = createOpenAICompatible({ name: "real", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true });
const scripted = createOpenAICompatible({ name: "scripted", baseURL: `${SCRIPTED_URL}/v1`, apiKey: SCRIPTED_KEY });
const prompt = "What is the capital of France?";
const City = z.object({ name: z.string(), is_capital: z.boolean() });
const get_weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: ({ city }) => `21 degrees in ${city}`,
});

await tried("the recipe", () => {
  const said = recipe();
  expect(said.includes("Paris"), said);
});

await tried("generateText", async () => {
  const said = await generateText({ model: real(MODEL), prompt, maxOutputTokens: 24, temperature: 0, maxRetries: 0 });
  expect(said.text.includes("Paris") && said.usage.outputTokens > 2, said.usage);
});

await tried("streamText, with usage", async () => {
  const said = streamText({ model: real(MODEL), prompt, maxOutputTokens: 24, temperature: 0, maxRetries: 0 });
  const parts = [];
  for await (const part of said.textStream) parts.push(part);
  expect(parts.length > 3 && parts.join("").includes("Paris") && (await said.usage).outputTokens > 2, parts);
});

await tried("structured output", async () => {
  const said = await generateText({
    model: real(MODEL), prompt, maxOutputTokens: 80, temperature: 0, maxRetries: 0, output: Output.object({ schema: City }),
  });
  expect(typeof said.output.is_capital === "boolean", said.output);
});

const agent = { model: scripted(SCRIPTED_MODEL), tools: { get_weather }, stopWhen: stepCountIs(3), maxRetries: 0 };

await tried("an agent with a tool, scripted", async () => {
  const said = await generateText({ ...agent, prompt: 'CALL get_weather {"city": "Paris"}' });
  expect(said.text.includes("21 degrees in Paris") && said.steps.length === 2, said.text);
});

await tried("an agent with a tool, streamed, scripted", async () => {
  const said = await streamText({ ...agent, prompt: 'CALL get_weather {"city": "Rome"}' }).text;
  expect(said.includes("21 degrees in Rome"), said);
});

await tried("embeddings", async () => {
  const model = real.embeddingModel(MODEL);
  const { embeddings } = await embedMany({ model, values: ["a cat", "the stock exchange"], maxRetries: 0 });
  expect(embeddings.length === 2 && embeddings[0].length > 100, embeddings.length);
});
