import litellm

answer = litellm.completion(  # reads OPENAI_BASE_URL and OPENAI_API_KEY
    model="openai/SmolLM2-135M-Instruct",
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=100,
    temperature=0,
)
print(answer.choices[0].message.content)
