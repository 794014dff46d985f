"""OpenAI's responses API, /v1/responses, over chat completions."""
