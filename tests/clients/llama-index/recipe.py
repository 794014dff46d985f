import os

from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    model="SmolLM2-135M-Instruct",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=8192,
    max_tokens=100,
    temperature=0,
)
for part in llm.stream_complete("What is the capital of France?"):
    print(part.delta, end="")
