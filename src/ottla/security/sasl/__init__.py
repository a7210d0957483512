"""SASL: what happens on a connection (``machine``), and one file per mechanism."""
