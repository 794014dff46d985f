"""Which worker gets a request. One file per policy."""
