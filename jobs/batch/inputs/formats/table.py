"""All formats by their names."""

from . import arrow, csv, jsonl, parquet, text
from .source import Format

FORMATS: dict[str, Format] = {"jsonl": jsonl, "text": text, "csv": csv, "parquet": parquet, "arrow": arrow}
