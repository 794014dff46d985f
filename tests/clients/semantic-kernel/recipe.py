import asyncio

import openai
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.contents import ChatHistory

service = OpenAIChatCompletion(ai_model_id="SmolLM2-135M-Instruct", async_client=openai.AsyncOpenAI())
history = ChatHistory()
history.add_user_message("What is the capital of France?")
settings = OpenAIChatPromptExecutionSettings(max_tokens=100, temperature=0)
print(asyncio.run(service.get_chat_message_content(history, settings)))
