"""Calls of tools in generated text: the formats of the model families, read as the text comes."""
