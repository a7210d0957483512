"""Serving requests: listeners, connections, dispatch, and one handler a file for each API."""
