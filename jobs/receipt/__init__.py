"""What a deployment has used, and what that has cost."""
