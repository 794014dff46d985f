"""What computes: the decoder, its KV cache, its kernels, and the ranks that share it. Start reading at loading.py."""
