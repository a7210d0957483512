"""The same requests to two brokers, and what their answers have not in common: see `__main__`."""
