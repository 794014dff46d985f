"""A fleet over 30 simulated days: our decisions against fixed fleets and chained jobs."""
