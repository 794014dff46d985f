// OpenAI's client in Node: `node walk.mjs OPENAI BASE_URL KEY MODEL` prints what it makes of an endpoint as JSON.
const [, , from, baseURL, apiKey, model] = process.argv;
const { default: OpenAI } = await import(from);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const ask = { model, messages: [{ role: "user", content: "Hi" }] };
const said = {};

const nameOf = async (promise) => {
  const error = await promise.then(() => null, (error) => error);
  return error && [error.constructor.name, error.status ?? null, error.code ?? null, typeof error.requestID === "string"];
};

said.models = (await client.models.list()).data.map((one) => one.id);
said.model = (await client.models.retrieve(model)).id;
const whole = await client.chat.completions.create(ask);
said.whole = [whole.choices[0].message.content, typeof whole._request_id];
said.raw = (await client.chat.completions.create(ask).asResponse()).headers.get("content-type");

said.streamed = "";
for await (const part of await client.chat.completions.create({ ...ask, stream: true })) {
  said.streamed += part.choices[0]?.delta?.content ?? "";
}

const left = await client.chat.completions.create({ ...ask, stream: true });
for await (const part of left) break;
said.aborted = left.controller.signal.aborted;

const gone = new AbortController();
gone.abort();
said.errors = {
  key: await nameOf(new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 }).models.list()),
  model: await nameOf(client.chat.completions.create({ ...ask, model: "none/such" })),
  retrieved: await nameOf(client.models.retrieve("none/such")),
  path: await nameOf(client.get("/nonsense")),
  body: await nameOf(client.post("/chat/completions", { body: "[" })),
  abort: await nameOf(client.chat.completions.create(ask, { signal: gone.signal })),
};
console.log(JSON.stringify(said));
