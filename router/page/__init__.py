"""The status page: index.html, one static file."""
