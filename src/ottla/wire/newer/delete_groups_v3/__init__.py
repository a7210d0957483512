"""DeleteGroups v3: an error may come with a message (KIP-1331)."""
