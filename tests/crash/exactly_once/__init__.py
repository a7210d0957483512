"""A pipeline that consumes, transforms and produces in transactions, and what is done to it."""
