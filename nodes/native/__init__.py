"""The native engine: decoders in plain PyTorch behind an OpenAI-compatible server. Start reading at service.py."""
