"""Chat templates: conversations to prompts, rendered in a process of its own."""
