"""What the parts of the native engine's API cost, and whether their answers are right."""
