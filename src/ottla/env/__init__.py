"""Effects: clock, disk and network as protocols, each with its real implementation."""
