import openai

client = openai.OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY of the notebook's server
answer = client.chat.completions.create(
    model="SmolLM2-135M-Instruct",
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=100,
    temperature=0,
)
print(answer.choices[0].message.content)
