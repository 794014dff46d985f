"""What config.json's `quantization_config` says of a checkpoint, by quant_method. Nothing here needs torch."""
