"""How a batch's rows are sent: their order, how many at once, retries, conversations."""
