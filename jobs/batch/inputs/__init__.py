"""What a batch reads: its files, its rows, and what each row asks for."""
