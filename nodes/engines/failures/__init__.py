"""Failures that engines write about in their logs, by where they come from: the machine, GPUs, the model, an engine."""
