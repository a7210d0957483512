"""Clients that come by no connection."""

from __future__ import annotations

from ottla.broker.request import Client


def let_in(host: str = "10.0.0.1", listener: str = "PLAINTEXT") -> Client:
    """One that may do everything, as whoever comes in where there is no authorizer."""
    client = Client(host, listener)
    client.permissions = None
    return client
