"""Partitions on disk: segments, indexes, producers' sequence numbers, recovery, retention."""
