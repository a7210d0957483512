"""The socket of a service manager: sd_notify(3), for units of systemd with ``Type=notify``.

The process says when it is ready and when it stops. While its event loop turns, it says so twice in the
unit's ``WatchdogSec=``. If the environment has no ``NOTIFY_SOCKET``, nothing is said, and no timer runs.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

from ottla.env.clock import Clock, Timer
from ottla.numbers import parse_whole

log = logging.getLogger(__name__)

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
# A watchdog's time is no longer than this (a year); what is longer is no time.
WATCHDOG_USEC_MAX = 365 * 24 * 3600 * 1_000_000
# The watchdog is told no more often than this, whatever it asks for: the event loop has other work.
BEAT_MS_MIN = 10.0


class ServiceManager:
    """Whoever started the process and waits for its messages; nobody where ``address`` is empty."""

    __slots__ = ("_address", "_beat_ms", "_clock", "_timer")

    def __init__(self, clock: Clock, address: str = "", watchdog_usec: int = 0) -> None:
        """``address``: an absolute path, or ``@`` and the name of an abstract socket. Other kinds (vsock) are
        ignored. ``watchdog_usec``: the longest silence that the manager accepts; 0: there is no watchdog."""
        self._clock = clock
        self._address = address if address.startswith(("/", "@")) else ""
        # Half of it, as sd_watchdog_enabled(3) recommends.
        self._beat_ms = max(BEAT_MS_MIN, watchdog_usec / 2000) if self._address and watchdog_usec else 0.0
        self._timer: Timer | None = None

    @classmethod
    def take(cls, environment: MutableMapping[str, str], clock: Clock) -> ServiceManager:
        """The manager that the environment names. Its variables are removed from it: processes that this one
        starts are not the service."""
        address = environment.pop(SOCKET, "")
        usec = parse_whole(environment.pop(WATCHDOG, ""), 1, WATCHDOG_USEC_MAX) or 0
        if environment.pop(WATCHDOG_PID, str(os.getpid())) != str(os.getpid()):
            usec = 0
        return cls(clock, address, usec)

    def ready(self, status: str) -> None:
        """The service is ready: its start job ends. Call this on the event loop: the watchdog begins here."""
        self._say(f"READY=1\nSTATUS={status}")
        if self._beat_ms and self._timer is None:
            self._beat()

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._say(f"STATUS={text}")

    def stopping(self, status: str) -> None:
        """The service stops. The watchdog goes on until ``close``, since a stop may take long."""
        self._say(f"STOPPING=1\nSTATUS={status}")

    def close(self) -> None:
        """Say nothing more."""
        self._address = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._say("WATCHDOG=1")
        self._timer = self._clock.call_later(self._beat_ms, self._beat)

    def _say(self, message: str) -> None:
        if not self._address:
            return
        # An abstract socket's name begins with a NUL byte, for which the variable has an @.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
                # A manager that does not read must not hold the event loop.
                made.setblocking(False)
                made.sendto(message.encode(), address)
        except OSError as error:
            log.warning(
                "the service manager could not be notified of %s: %s", message.split("\n", 1)[0], error
            )
