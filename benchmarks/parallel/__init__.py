"""The native engine over several processes and nodes."""
