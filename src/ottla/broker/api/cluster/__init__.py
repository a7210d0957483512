"""The cluster: its nodes, what they serve and hold, and where replicas belong."""
