"""What a batch reads: one file per format."""
