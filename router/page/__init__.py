"""The status page and the page of the API: one static file each, and the colours of both."""
