"""The workers as this relay sees them, and its connections to them."""
