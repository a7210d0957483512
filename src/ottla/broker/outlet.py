"""The interface of a pipeline to the owner of the client's socket, and its stand-in when there is none."""

from __future__ import annotations

from typing import Final, Protocol, final

from ottla.broker.pending import Pieces


class Outlet(Protocol):
    """What a pipeline has done by whoever holds the socket."""

    def write(self, pieces: Pieces) -> None:
        """Send a response."""
        ...

    def receive(self, go_on: bool) -> None:
        """Go on taking what the client sends, or stop. Told only where that changes."""
        ...

    def close(self) -> None:
        """Close, once all that was given to ``write`` is sent."""
        ...


@final
class Nowhere:
    """The outlet of a client that is gone."""

    def write(self, pieces: Pieces) -> None:
        pass

    def receive(self, go_on: bool) -> None:
        pass

    def close(self) -> None:
        pass


NOWHERE: Final = Nowhere()
