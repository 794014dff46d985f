"""Where a batch's requests go: an endpoint that is there, a deployment, or workers of the batch's own."""
