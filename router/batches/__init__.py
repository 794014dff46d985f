"""OpenAI's files and batches in the run directory: what the router's pages and the program that does the work share."""
