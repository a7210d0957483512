"""The simulated network: TCP's promises, and faults that bite."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from sim_support import BufferedNotes, Echo, Hosts, Notes


@pytest.mark.parametrize("seed", range(12))
def test_bytes_arrive_once_and_in_order(seed: int) -> None:
    hosts = Hosts(seed)
    sent = Random(seed).randbytes(300_000)
    near, far = Notes(), BufferedNotes(1000)

    async def main() -> None:
        await hosts.connect(0, lambda: near, await hosts.serve(1, lambda: far))
        start = 0
        while start < len(sent):
            size = Random(start).randrange(1, 20_000)
            near.transport.write(sent[start : start + size])
            start += size
            await asyncio.sleep(0.001)
        await asyncio.sleep(30)
        assert far.data == sent

    hosts.run(main())


def test_requests_and_answers() -> None:
    hosts = Hosts()
    near = Notes()

    async def main() -> None:
        await hosts.connect(0, lambda: near, await hosts.serve(1, Echo))
        assert near.transport.get_extra_info("peername")[0] == "10.0.0.1"
        near.transport.writelines([b"one", b"two"])
        await asyncio.sleep(1)
        assert near.data == b"onetwo"

    hosts.run(main())


def test_some_messages_arrive_in_pieces() -> None:
    pieces = set()
    for seed in range(30):
        hosts = Hosts(seed)
        near, far = Notes(), Notes()

        async def main(hosts: Hosts = hosts, near: Notes = near, far: Notes = far) -> None:
            await hosts.connect(0, lambda: near, await hosts.serve(1, lambda: far))
            for _ in range(20):
                near.transport.write(b"x" * 100)
                await asyncio.sleep(0.1)

        hosts.run(main())
        pieces.add(far.pieces > 20)
    assert pieces == {True, False}


def test_connections_overtake_each_other() -> None:
    orders = set()
    for seed in range(20):
        hosts = Hosts(seed)
        got: list[str] = []

        class Named(Notes):
            def data_received(self, data: bytes, got: list[str] = got) -> None:
                got.append(data.decode())

        async def main(hosts: Hosts = hosts) -> None:
            address = await hosts.serve(1, Named)
            one, two = Notes(), Notes()
            await hosts.connect(0, lambda: one, address)
            await hosts.connect(0, lambda: two, address)
            one.transport.write(b"one")
            two.transport.write(b"two")
            await asyncio.sleep(1)

        hosts.run(main())
        orders.add("".join(got))
    assert {"onetwo", "twoone"} <= orders


def test_closing_delivers_what_was_written() -> None:
    hosts = Hosts()
    near, far = Notes(), Notes()

    async def main() -> None:
        await hosts.connect(0, lambda: near, await hosts.serve(1, lambda: far))
        near.transport.write(b"x" * 3_000_000)
        near.transport.close()
        await asyncio.sleep(60)
        assert len(far.data) == 3_000_000
        assert near.lost == [None]
        assert far.lost == [None]

    hosts.run(main())


def test_a_reader_that_pauses_holds_up_the_writer() -> None:
    hosts = Hosts()
    near, far = Notes(), Notes()

    async def main() -> None:
        await hosts.connect(0, lambda: near, await hosts.serve(1, lambda: far))
        await asyncio.sleep(1)
        far.transport.pause_reading()
        for _ in range(40):
            near.transport.write(b"x" * 50_000)
            await asyncio.sleep(0.1)
        assert far.data == b""
        assert near.paused == [True]
        assert near.transport.get_write_buffer_size() > 64 << 10
        far.transport.resume_reading()
        await asyncio.sleep(30)
        assert len(far.data) == 2_000_000
        assert near.paused == [True, False]
        assert near.transport.get_write_buffer_size() == 0

    hosts.run(main())


def test_nobody_listens() -> None:
    hosts = Hosts()

    async def main() -> None:
        address = await hosts.serve(1, Notes)
        with pytest.raises(ConnectionRefusedError):
            await hosts.connect(0, Notes, (address[0], 1))
        hosts.kill(1)
        with pytest.raises(ConnectionRefusedError):
            await hosts.connect(0, Notes, address)
        assert hosts.loop.time() < 2
        with pytest.raises(OSError, match="No route"):
            await hosts.connect(0, Notes, ("10.9.9.9", 1))

    hosts.run(main())


@pytest.mark.parametrize("fault", ["crash", "cut there", "cut back"])
def test_who_cannot_be_reached_does_not_refuse(fault: str) -> None:
    hosts = Hosts()

    async def main() -> None:
        address = await hosts.serve(1, Notes)
        if fault == "crash":
            hosts.crash(1)
        else:
            hosts.cut(*((0, 1) if fault == "cut there" else (1, 0)))
        with pytest.raises(TimeoutError):
            await hosts.connect(0, Notes, address)
        assert hosts.loop.time() > 5

    hosts.run(main())


def test_a_connection_is_made_once_the_link_heals() -> None:
    hosts = Hosts()

    async def main() -> None:
        address = await hosts.serve(1, Echo)
        hosts.cut(0, 1)
        hosts.loop.call_later(3, hosts.heal, 0, 1)
        near = Notes()
        await hosts.connect(0, lambda: near, address)
        assert hosts.loop.time() > 3
        near.transport.write(b"hello")
        await asyncio.sleep(1)
        assert near.data == b"hello"

    hosts.run(main())


async def pair(hosts: Hosts) -> tuple[Notes, Notes]:
    near, far = Notes(), Notes()
    await hosts.connect(0, lambda: near, await hosts.serve(1, lambda: far))
    await asyncio.sleep(1)
    return near, far


def test_a_process_that_ends_is_heard_of_and_one_without_power_is_not() -> None:
    for fault in ("kill", "crash"):
        hosts = Hosts()

        async def main(hosts: Hosts = hosts, fault: str = fault) -> None:
            near, far = await pair(hosts)
            getattr(hosts, fault)(1)
            await asyncio.sleep(60)
            assert len(near.lost) == (1 if fault == "kill" else 0)
            # A dead process hears of nothing.
            assert far.lost == []
            if fault == "crash":
                near.transport.write(b"anyone?")
                await asyncio.sleep(60)
                assert isinstance(near.lost[0], TimeoutError)

        hosts.run(main())


def test_a_machine_that_is_back_knows_nothing_of_old_connections() -> None:
    hosts = Hosts()

    async def main() -> None:
        near, _ = await pair(hosts)
        hosts.crash(1)
        near.transport.write(b"lost")
        await asyncio.sleep(2)
        hosts.machines[1].boot()
        hosts.fabric.retry()
        await asyncio.sleep(5)
        assert isinstance(near.lost[0], ConnectionResetError)

    hosts.run(main())


def test_a_short_partition_delays_and_a_long_one_breaks() -> None:
    for seconds, breaks in ((3, False), (60, True)):
        hosts = Hosts(seconds)

        async def main(hosts: Hosts = hosts, seconds: int = seconds, breaks: bool = breaks) -> None:
            near, far = await pair(hosts)
            hosts.cut(0, 1, both=True)
            near.transport.write(b"through")
            await asyncio.sleep(seconds)
            assert far.data == b""
            hosts.heal(0, 1, both=True)
            await asyncio.sleep(20)
            assert far.data == (b"" if breaks else b"through")
            assert bool(near.lost) == breaks

        hosts.run(main())


def test_a_one_way_partition_lets_one_direction_through() -> None:
    hosts = Hosts()

    async def main() -> None:
        near, far = await pair(hosts)
        hosts.cut(1, 0)
        near.transport.write(b"to far")
        far.transport.write(b"to near")
        await asyncio.sleep(3)
        assert (far.data, near.data) == (b"to far", b"")
        # Nothing comes back, so both senders give up in the end.
        await asyncio.sleep(60)
        assert isinstance(near.lost[0], TimeoutError)
        assert isinstance(far.lost[0], TimeoutError)

    hosts.run(main())


def test_who_has_forgotten_a_connection_resets_it() -> None:
    hosts = Hosts()

    async def main() -> None:
        near, far = await pair(hosts)
        hosts.cut(0, 1, both=True)
        near.transport.write(b"lost")
        await asyncio.sleep(60)
        assert near.lost
        hosts.heal(0, 1, both=True)
        await asyncio.sleep(60)
        assert not far.lost
        far.transport.write(b"are you there?")
        await asyncio.sleep(5)
        assert isinstance(far.lost[0], ConnectionResetError)

    hosts.run(main())


def test_a_broken_connection_is_heard_of_at_both_ends() -> None:
    hosts = Hosts()

    async def main() -> None:
        near, far = await pair(hosts)
        hosts.fabric.break_connection(next(iter(hosts.fabric.transports)))
        await asyncio.sleep(1)
        assert isinstance(near.lost[0], ConnectionResetError)
        assert isinstance(far.lost[0], ConnectionResetError)
        assert not hosts.fabric.transports

    hosts.run(main())


def test_a_lost_message_stalls_the_connection_until_it_breaks() -> None:
    hosts = Hosts()

    async def main() -> None:
        near, far = await pair(hosts)
        hosts.fabric.lose(near.transport)
        near.transport.write(b"one")
        near.transport.write(b"two")
        far.transport.write(b"back")
        await asyncio.sleep(4)
        assert (far.data, near.data) == (b"", b"back")
        await asyncio.sleep(30)
        assert isinstance(near.lost[0], TimeoutError)
        assert far.data == b""

    hosts.run(main())


def test_what_came_while_paused_is_read_afterwards_in_order() -> None:
    hosts = Hosts()

    async def main() -> None:
        near, far = await pair(hosts)
        hosts.loop.pause(hosts.processes[1])
        for number in range(100):
            near.transport.write(b"%d," % number)
            await asyncio.sleep(0.01)
        assert far.data == b""
        hosts.loop.resume(hosts.processes[1])
        near.transport.write(b"end")
        await asyncio.sleep(2)
        assert far.data == b"".join(b"%d," % number for number in range(100)) + b"end"

    hosts.run(main())


def test_a_paused_machine_still_accepts() -> None:
    hosts = Hosts()

    async def main() -> None:
        address = await hosts.serve(1, Echo)
        hosts.loop.pause(hosts.processes[1])
        near = Notes()
        await hosts.connect(0, lambda: near, address)
        near.transport.write(b"hello")
        await asyncio.sleep(3)
        assert near.data == b""
        hosts.loop.resume(hosts.processes[1])
        await asyncio.sleep(1)
        assert near.data == b"hello"

    hosts.run(main())


def test_an_address_is_taken_once_and_free_again_after_its_process() -> None:
    hosts = Hosts()

    async def main() -> None:
        network = hosts.fabric.network(hosts.processes[1])
        listener = await network.bind(Notes, "", 9)
        with pytest.raises(OSError, match="in use"):
            await network.bind(Notes, "", 9)
        with pytest.raises(ConnectionRefusedError):
            await hosts.connect(0, Notes, listener.address)
        hosts.kill(1)
        again = hosts.fabric.network(hosts.machines[1].begin())
        await again.bind(Notes, "", 9)

    hosts.run(main())


def test_a_protocol_that_fails_is_a_finding() -> None:
    hosts = Hosts()

    class Broken(Notes):
        def data_received(self, data: bytes) -> None:
            raise ValueError("broken")

    async def main() -> None:
        near = Notes()
        await hosts.connect(0, lambda: near, await hosts.serve(1, Broken))
        near.transport.write(b"x")
        await asyncio.sleep(1)

    with pytest.raises(AssertionError):
        hosts.run(main())
    assert "broken" in hosts.loop.failures[0]


def test_a_seed_repeats_and_others_differ() -> None:
    def run(seed: int) -> str:
        hosts = Hosts(seed)

        async def main() -> None:
            address = await hosts.serve(1, Echo)
            notes = [Notes() for _ in range(5)]
            for note in notes:
                await hosts.connect(0, lambda note=note: note, address)  # type: ignore[misc]
            for turn in range(20):
                for note in notes:
                    note.transport.write(b"x" * turn * 100)
                await asyncio.sleep(0.01)
            await asyncio.sleep(10)

        hosts.run(main())
        return hosts.trace.digest()

    digests: list[Any] = [run(seed) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]
