"""What programs write into logs, and what it means."""
