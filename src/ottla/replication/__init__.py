"""Partitions: their role on this node, what is visible of their log, and who waits for it to grow."""
