import anthropic

client = anthropic.Anthropic()  # reads ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY
with client.messages.stream(
    model="SmolLM2-135M-Instruct",
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=100,
    extra_body={"temperature": 0},
) as stream:
    for text in stream.text_stream:
        print(text, end="")
