"""The gate of an engine that is reached over the network: TLS in front, the engine's Unix socket behind."""
