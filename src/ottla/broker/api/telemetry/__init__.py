"""Metrics of clients: which they are asked for, and what they send (KIP-714)."""
