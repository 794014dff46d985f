from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    model="SmolLM2-135M-Instruct", max_tokens=100, temperature=0
)  # reads OPENAI_BASE_URL and OPENAI_API_KEY
for part in model.stream("What is the capital of France?"):
    print(part.text, end="")
