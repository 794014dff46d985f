"""What serves HTTP: OpenAI's API in front of the engine. Start reading at server.py."""
