from pydantic_ai import Agent

agent = Agent("openai-chat:SmolLM2-135M-Instruct")  # reads OPENAI_BASE_URL and OPENAI_API_KEY
answer = agent.run_sync("What is the capital of France?", model_settings={"max_tokens": 100, "temperature": 0})
print(answer.output)
