"""What a batch reads: one file per format, listed in reader.py. What a record may ask for is in request.py."""
