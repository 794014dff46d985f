"""What a person sees of a batch: prediction, progress, summary."""
