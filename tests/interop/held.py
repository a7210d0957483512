"""How long a broker's event loop does not get round to a client, in CPU time of its own.

On a machine with other work a wait says little: the broker may have been ready and had no core. What counts
is how much its loop worked between a small request and the answer to it. A request of another client that
holds the loop for 50 ms is in the figure with 50 ms, whatever else runs.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from interop.process import wait_until
from interop.raw import RawClient


class Held(NamedTuple):
    """One wait: the loop's CPU time and the time that went by, in ms, and when it ended (monotonic)."""

    cpu_ms: float
    wall_ms: float
    at_s: float


class Watch:
    """Within `with`, a client that asks for the versions again and again, in a thread."""

    def __init__(self, address: str, pid: int, pause_s: float = 0.001) -> None:
        self.held: list[Held] = []
        self._address = address
        # The first thread of a process is its event loop.
        self._schedstat = Path(f"/proc/{pid}/task/{pid}/schedstat")
        self._pause_s = pause_s
        self._failure: Exception | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def worst(self, since_s: float = 0.0) -> Held:
        """The wait with the most CPU time of those that ended since a moment."""
        return max((one for one in self.held if one.at_s >= since_s), default=Held(0.0, 0.0, 0.0))

    def settle(self) -> None:
        """Return when whatever was under way is noted, and another wait behind it."""
        known = len(self.held)
        wait_until(lambda: len(self.held) >= known + 2 or self._failure is not None, pause_s=0.001)

    def cpu_ms(self) -> float:
        """The CPU time of the loop so far."""
        return int(self._schedstat.read_text().split()[0]) / 1e6

    def __enter__(self) -> Watch:
        self._client = RawClient(self._address)
        self._request = self._client.frame("ApiVersions", 0, {})
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                cpu_ms, began_s = self.cpu_ms(), time.monotonic()
                self._client.send(self._request)
                self._client.receive()
                now_s = time.monotonic()
                self.held.append(Held(self.cpu_ms() - cpu_ms, (now_s - began_s) * 1000, now_s))
                self._ending.wait(self._pause_s)
        except Exception as failure:  # noqa: BLE001 - raised again in the test's own thread
            self._failure = failure

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join(60)
        self._client.socket.close()
        if error is None and self._failure is not None:
            raise self._failure
