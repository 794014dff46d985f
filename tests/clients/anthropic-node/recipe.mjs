import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic(); // reads ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY
const answer = await client.messages.create({
  model: "SmolLM2-135M-Instruct",
  messages: [{ role: "user", content: "What is the capital of France?" }],
  max_tokens: 100,
  temperature: 0,
});
console.log(answer.content[0].text);
