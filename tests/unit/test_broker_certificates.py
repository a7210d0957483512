"""A node's TLS while keys and certificates change: in files, and in dynamic configurations."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from coordinators_support import ManualClock
from tls_support import Authority, Identity, pem_of

from ottla.broker.certificates import LOOK_AGAIN_MS, Certificates
from ottla.config import BrokerConfig, ConfigError

CA = Authority()
LISTENER = "SSL"
OWN = f"listener.name.{LISTENER.lower()}."


class Bench:
    """A node's TLS, over the files of a folder, with time that passes when the test says so."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.clock = ManualClock()
        self.key = folder / "key.pem"
        trusted = folder / "trusted.pem"
        trusted.write_text(pem_of(CA.certificate))
        self.write(identity.pem())
        self.config = BrokerConfig(
            {
                "listeners": "SSL://:0",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self.key),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(trusted),
            }
        )
        self.tls = Certificates(self.config, self.clock)
        self.contexts = self.tls._contexts[LISTENER]

    def write(self, text: str) -> None:
        """As whoever renews certificates does: the new file takes the place of the old one."""
        other = self.key.with_suffix(".new")
        other.write_text(text)
        os.replace(other, self.key)

    def tick(self) -> None:
        (timer,) = self.clock.timers
        timer.callback()

    async def looked(self) -> None:
        if self.tls._looking is not None:
            await self.tls._looking


def run(tmp_path: Path, main: Callable[[Bench], object], identity: Identity | None = None) -> None:
    async def around() -> None:
        bench = Bench(tmp_path, identity or CA.issue("me"))
        bench.tls.start()
        try:
            await main(bench)  # type: ignore[misc]
        finally:
            bench.tls.close()

    asyncio.run(around())


def test_a_file_that_changed_is_taken_for_connections_to_come(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def main(bench: Bench) -> None:
        before = bench.contexts.server()
        bench.tick()
        await bench.looked()
        assert bench.contexts.server() is before and not caplog.text
        ends_s = bench.tls.ends_s()[LISTENER]
        bench.write(CA.issue("me", days=(-1, 40)).pem())
        bench.tick()
        await bench.looked()
        assert bench.contexts.server() is not before
        assert 9 < (bench.tls.ends_s()[LISTENER] - ends_s) / 86_400 < 11
        assert "listener SSL: certificate files loaded again: new connections use them" in caplog.text

    run(tmp_path, main)


def test_a_file_that_is_no_good_is_said_so_once_and_the_next_one_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(bench: Bench) -> None:
        before = bench.contexts.server()
        bench.write("half of a")
        for _ in range(3):
            bench.tick()
            await bench.looked()
        (line,) = [record.getMessage() for record in caplog.records]
        assert (
            line.startswith("listener SSL: ssl.keystore.location ")
            and "keeps its old certificate files" in line
        )
        assert bench.contexts.server() is before
        bench.write(CA.issue("me").pem())
        bench.tick()
        await bench.looked()
        assert bench.contexts.server() is not before

    run(tmp_path, main)


def test_looks_go_on_whatever_becomes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bench: Bench) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(bench.contexts, "changed", lambda: 1 / 0)
            bench.tick()
            await bench.looked()
        before = bench.contexts.server()
        bench.write(CA.issue("me").pem())
        bench.tick()
        await bench.looked()
        assert bench.contexts.server() is not before
        (timer,) = bench.clock.timers
        assert 0 < timer.at_ms - bench.clock.monotonic_ms() <= LOOK_AGAIN_MS

    run(tmp_path, main)


def test_dynamic_settings_are_checked_and_put_in_force_at_once(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        before = bench.contexts.server()
        other, stranger = tmp_path / "other.pem", tmp_path / "stranger.pem"
        other.write_text(CA.issue("me").pem())
        stranger.write_text(Authority().issue("me").pem())
        good = {OWN + "ssl.keystore.location": str(other)}
        for bad in (stranger, tmp_path / "none"):
            with pytest.raises(ConfigError, match="listener SSL: "):
                bench.config.check_dynamic({OWN + "ssl.keystore.location": str(bad)}, per_broker=True)
        with pytest.raises(ConfigError, match="only per-listener"):
            bench.config.check_dynamic({"ssl.keystore.location": str(other)}, per_broker=True)
        # Others' settings do not matter to it.
        bench.config.check_dynamic({"listener.name.x.ssl.keystore.location": "/none"}, per_broker=True)
        bench.config.check_dynamic(good, per_broker=True)
        assert bench.contexts.server() is before

        bench.config.update_dynamic({}, {"max.connections": "5"})
        assert bench.tls._looking is None
        bench.config.update_dynamic({}, good)
        await bench.looked()
        assert bench.contexts.server() is not before

    run(tmp_path, main)


def test_a_file_that_changed_while_settings_are_set_is_checked_too(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.write("nothing")
        with pytest.raises(ConfigError, match="no private key"):
            bench.config.check_dynamic({"max.connections": "5"}, per_broker=True)

    run(tmp_path, main)


def test_nodes_could_not_connect_by_a_certificate_that_ended(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match="certificate has expired"):
        run(tmp_path, main, CA.issue("me", days=(-9, -2)))
