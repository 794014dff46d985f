import guidance

model = guidance.models.OpenAI("SmolLM2-135M-Instruct", echo=False)  # reads OPENAI_BASE_URL and OPENAI_API_KEY
with guidance.user():
    model += "What is the capital of France?"
with guidance.assistant():
    model += guidance.gen("answer", max_tokens=100, temperature=0.01)
print(model["answer"])
