"""Processes of ours and of others: starting them, naming them, and the shell around them."""
