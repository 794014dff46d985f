"""What a user starts: deployments, batches, model downloads. Composes the other parts; torch is never imported here."""
