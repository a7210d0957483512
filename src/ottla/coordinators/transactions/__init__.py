"""Transactions: a pure machine that decides them, and a shell that has their markers written."""
