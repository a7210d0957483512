"""Which metrics clients are asked for, and what they have sent (KIP-714). Without I/O."""
