"""OpenAI's batch API: the program that does what tenants ask for at /v1/batches. Start reading at manager.py."""
