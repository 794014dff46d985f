import openai

client = openai.OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY
answer = client.chat.completions.create(
    model="SmolLM2-135M-Instruct",
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=100,
    temperature=0,
    stream=True,
)
for part in answer:
    if part.choices:
        print(part.choices[0].delta.content or "", end="")
