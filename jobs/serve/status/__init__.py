"""What one look at a deployment finds, and how it is told."""
