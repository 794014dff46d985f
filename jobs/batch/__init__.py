"""`slurminfer batch`: generation for every record of a file. Start reading at command.py."""
