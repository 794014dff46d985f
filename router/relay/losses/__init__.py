"""Lost workers: what is held against a request, and how many may be tried again."""
