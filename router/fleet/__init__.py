"""The workers as the router sees them."""
