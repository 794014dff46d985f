"""`slurminfer bench comm`: how nodes communicate. Start reading at command.py."""
