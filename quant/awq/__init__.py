"""Activation-aware weight quantization (AWQ, arXiv 2306.00978). Start reading at layer.py."""
