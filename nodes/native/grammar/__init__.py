"""Structured output: what a request may ask its answer to look like, compiled to masks of allowed tokens.

This package imports neither PyTorch nor the library that compiles; see compiler.py for the latter.
"""
