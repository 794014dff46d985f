"""`slurminfer evaluate`: a quantized model beside its original. Start reading at command.py."""
