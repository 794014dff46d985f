"""Model directories as they lie on disk: config.json, safetensors, and the formats of quantized weights."""
