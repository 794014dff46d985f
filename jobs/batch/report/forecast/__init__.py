"""What a batch will take, before it is done."""
