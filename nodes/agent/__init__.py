"""The agent: lives the life of one worker on its node. Start reading at entry.py."""
