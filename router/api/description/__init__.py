"""OpenAPI: what the endpoint takes and answers, for programs and for the page that shows it."""
