"""The protocol's bytes: frames, API table, messages, record batches, compression. No I/O here."""
