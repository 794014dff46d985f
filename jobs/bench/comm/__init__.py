"""`slurminfer bench comm`: how nodes communicate. Start reading at job.py."""
