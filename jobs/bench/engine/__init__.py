"""`slurminfer bench engine`: the native engine on this machine. Start reading at command.py."""
