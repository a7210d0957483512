"""A TCP port that stays with its broker while that is down."""

from __future__ import annotations

import socket
import sys


class HeldPort:
    """A free port of this machine. Until `release` nobody else is given it, and clients are refused there
    while nobody listens (on Linux; elsewhere somebody may take it meanwhile)."""

    def __init__(self, host: str) -> None:
        """OSError: the host is none of this machine."""
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        self._socket = socket.socket(family, kind, protocol)
        # Whoever says so, too, may listen there beside a socket that does not.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(address)
        except BaseException:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    def release(self) -> None:
        """Let others have it. Harmless the second time."""
        self._socket.close()
