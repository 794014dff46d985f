"""The native engine against vLLM, llama.cpp and transformers."""
