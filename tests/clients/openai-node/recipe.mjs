import OpenAI from "openai";

const client = new OpenAI(); // reads OPENAI_BASE_URL and OPENAI_API_KEY
const answer = await client.chat.completions.create({
  model: "SmolLM2-135M-Instruct",
  messages: [{ role: "user", content: "What is the capital of France?" }],
  max_tokens: 100,
  temperature: 0,
  stream: true,
});
for await (const part of answer) {
  process.stdout.write(part.choices[0]?.delta?.content ?? "");
}
