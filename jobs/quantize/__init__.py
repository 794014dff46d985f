"""`slurminfer quantize`. Start reading at command.py."""
