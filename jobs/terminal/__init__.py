"""What all kinds of jobs print on a user's terminal: the consoles, progress, and tables."""
