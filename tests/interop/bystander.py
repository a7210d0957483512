"""A well-behaved client that goes on working while a test is unkind to the broker."""

from __future__ import annotations

import threading
import time
import uuid
from types import TracebackType

from interop.raw import RawClient, batch


class Bystander:
    """Within `with`, one record after the other is produced (acks=all) and read back, in a thread.

    At the end: no call failed, none took longer than `latency_s_max`, and every record is there once.
    """

    def __init__(self, address: str, latency_s_max: float = 10.0) -> None:
        self.rounds = 0
        self.slowest_s = 0.0
        self._latency_s_max = latency_s_max
        self._address = address
        self._topic = f"bystander-{uuid.uuid4().hex[:8]}"
        self._failure: Exception | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Bystander:
        self._client = RawClient(self._address)
        assert self._client.create_topic(self._topic).error_code == 0
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                started = time.monotonic()
                sent = self._client.produce(self._topic, batch(b"%d" % self.rounds))
                assert (sent.error_code, sent.base_offset) == (0, self.rounds), sent
                got = self._client.fetch(self._topic, self.rounds)
                assert (got.error_code, got.high_watermark) == (0, self.rounds + 1), got
                self.slowest_s = max(self.slowest_s, time.monotonic() - started)
                self.rounds += 1
                self._ending.wait(0.002)
        except Exception as failure:  # noqa: BLE001 - raised again in the test's own thread
            self._failure = failure

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join(60)
        try:
            if error is not None:
                return
            if self._failure is not None:
                raise self._failure
            assert not self._thread.is_alive()
            assert self.rounds > 0
            assert self.slowest_s < self._latency_s_max
            assert self._client.values(self._topic) == [b"%d" % i for i in range(self.rounds)]
        finally:
            self._client.socket.close()
