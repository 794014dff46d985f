"""What the scheduler decides by: whose turn it is, and how long a step may take."""
