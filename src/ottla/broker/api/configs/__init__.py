"""Configurations of topics and brokers: shown and changed."""
