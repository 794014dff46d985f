"""AWQ against AutoAWQ."""
