"""APIs besides OpenAI's completions and chat, translated: requests to chat completions, their answers back."""
