"""The HTTP client of a batch: the router's side towards its workers, for any endpoint."""
