"""GGUF files into model directories. Start reading at convert.py."""
