"""Transactions: their producers, what they write to, how they end, and what there is of them."""
