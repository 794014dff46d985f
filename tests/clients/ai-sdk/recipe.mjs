import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const slurminfer = createOpenAICompatible({
  name: "slurminfer",
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
  supportsStructuredOutputs: true,
});
const { textStream } = streamText({
  model: slurminfer("SmolLM2-135M-Instruct"),
  prompt: "What is the capital of France?",
  maxOutputTokens: 100,
  temperature: 0,
});
for await (const text of textStream) process.stdout.write(text);
