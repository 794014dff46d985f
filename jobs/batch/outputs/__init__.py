"""What a batch writes: columns for each row, and a writer for each format."""
