"""What goes on beside something else: rounds that never end, and threads for work that blocks."""
