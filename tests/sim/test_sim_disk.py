"""The simulated disk: what survives the end of a process, a loss of power, and a disk that fails."""

from __future__ import annotations

import asyncio
import errno
from random import Random

import pytest

from ottla.explore.world.disk import SimDisk, Volume
from ottla.explore.world.loop import VirtualLoop
from ottla.explore.world.machine import Machine


class Box:
    """A machine with a disk and a process."""

    def __init__(self, seed: object = 1) -> None:
        self.loop = VirtualLoop()
        self.machine = Machine(self.loop, "m", "10.0.0.1")
        self.volume = Volume(self.machine, Random(f"{seed}"))
        self.disk = self.start()

    def start(self) -> SimDisk:
        self.disk = self.volume.mount(self.machine.begin())
        return self.disk

    def kill(self) -> SimDisk:
        assert self.machine.process is not None
        self.loop.kill(self.machine.process)
        return self.start()

    def lose_power(self) -> SimDisk:
        assert self.machine.process is not None
        self.loop.kill(self.machine.process)
        self.volume.lose_power()
        self.machine.boot()
        return self.start()


def test_the_page_cache_survives_the_process() -> None:
    box = Box()
    box.disk.make_dirs("/data")
    box.disk.open("/data/a", create=True).append([b"one", b"two"])
    disk = box.kill()
    assert disk.read_file("/data/a") == b"onetwo"
    assert disk.list("/data") == ["a"]


def test_what_was_synced_survives_a_loss_of_power() -> None:
    for seed in range(50):
        box = Box(seed)
        box.disk.make_dirs("/data")
        box.disk.sync_dir("/")
        file = box.disk.open("/data/a", create=True)
        file.append([b"synced"])
        file.sync()
        box.disk.sync_dir("/data")
        assert box.lose_power().read_file("/data/a") == b"synced"


def test_a_loss_of_power_takes_any_end_of_the_rest() -> None:
    kept, lengths = set(), set()
    for seed in range(300):
        box = Box(seed)
        file = box.disk.open("/a", create=True)
        file.append([b"synced-"])
        file.sync()
        box.disk.sync_dir("/")
        for letter in (b"aaaa", b"bbbb", b"cccc"):
            file.append([letter])
        left = box.lose_power().read_file("/a")
        text = left.rstrip(b"\0")
        assert b"synced-aaaabbbbcccc".startswith(text)
        assert len(text) >= len(b"synced-")
        kept.add(text)
        lengths.add(len(left) > len(text))
    # None, some, torn, all; and a size that was written without the bytes.
    assert {b"synced-", b"synced-aaaa", b"synced-aaaabbbbcccc"} <= kept
    assert any(len(text) % 4 != 7 % 4 for text in kept)
    assert lengths == {True, False}


def test_files_and_names_that_were_not_synced_may_be_gone() -> None:
    found = set()
    for seed in range(100):
        box = Box(seed)
        file = box.disk.open("/a", create=True)
        file.append([b"x"])
        # The file's bytes are on the disk; that there is a file of this name is not.
        file.sync()
        found.add(box.lose_power().exists("/a"))
    assert found == {True, False}


def test_renames_are_lost_whole_or_kept_whole() -> None:
    states = set()
    for seed in range(100):
        box = Box(seed)
        box.disk.write_file("/a", b"1")
        box.disk.write_file("/b", b"2")
        box.disk.rename("/a", "/b")
        disk = box.lose_power()
        states.add(tuple((name, disk.read_file(f"/{name}")) for name in disk.list("/")))
    assert states == {(("a", b"1"), ("b", b"2")), (("b", b"1"),)}


def test_a_replaced_file_is_old_or_new_and_new_if_it_was_synced() -> None:
    unsynced = set()
    for seed in range(100):
        box = Box(seed)
        box.disk.write_file("/a", b"old")
        box.disk.write_file("/a", b"new!", sync=False)
        unsynced.add(box.lose_power().read_file("/a"))
        box = Box(seed)
        box.disk.write_file("/a", b"old")
        box.disk.write_file("/a", b"new!")
        assert box.lose_power().read_file("/a") == b"new!"
    assert unsynced == {b"old", b"new!", b""}


def test_a_truncation_may_be_lost_too() -> None:
    found = set()
    for seed in range(100):
        box = Box(seed)
        file = box.disk.open("/a", create=True)
        file.append([b"0123456789"])
        file.sync()
        box.disk.sync_dir("/")
        file.truncate(4)
        file.append([b"xx"])
        found.add(box.lose_power().read_file("/a").rstrip(b"\0"))
    assert {b"0123456789", b"0123", b"0123xx"} <= found


def test_a_failed_sync_loses_what_a_later_one_seems_to_save() -> None:
    box = Box()
    file = box.disk.open("/a", create=True)
    box.disk.sync_dir("/")
    file.append([b"lost"])
    box.volume.failing["sync"] = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    box.volume.failing.clear()
    file.append([b"kept"])
    file.sync()
    assert box.disk.read_file("/a") == b"lostkept"
    assert box.lose_power().read_file("/a") == b"\0\0\0\0kept"


def test_a_full_disk_takes_what_fits() -> None:
    box = Box()
    file = box.disk.open("/a", create=True)
    box.volume.capacity_bytes = 10
    file.append([b"12345"])
    with pytest.raises(OSError, match="No space") as caught:
        file.append([b"6789012345"])
    assert caught.value.errno == errno.ENOSPC
    assert box.disk.read_file("/a") == b"1234567890"
    with pytest.raises(OSError, match="No space"):
        box.disk.write_file("/b", b"x")
    file.truncate(5)
    assert box.disk.free_bytes("/") == (10, 5)
    box.disk.remove("/a")
    box.disk.write_file("/b", b"x" * 10)


@pytest.mark.parametrize("operation", ["read", "write", "open", "sync"])
def test_operations_fail_on_demand(operation: str) -> None:
    box = Box()
    file = box.disk.open("/a", create=True)
    box.volume.failing[operation] = errno.EIO
    work = {
        "read": lambda: file.read(0, 1),
        "write": lambda: file.append([b"x"]),
        "open": lambda: box.disk.open("/a"),
        "sync": lambda: box.disk.sync_dir("/"),
    }
    for name, call in work.items():
        if name == operation:
            with pytest.raises(OSError, match="Input/output"):
                call()
        else:
            call()


def test_a_slow_disk_delays_its_process() -> None:
    box = Box()
    box.volume.slow_us = 100_000
    process = box.machine.process
    assert process is not None
    times: list[float] = []

    async def work() -> None:
        file = box.disk.open("/a", create=True)
        for _ in range(20):
            file.append([b"x"])
        await asyncio.sleep(0)
        times.append(box.loop.time())
        began = box.loop.time()
        await box.disk.run(file.sync)
        times.append(box.loop.time() - began)

    async def other() -> None:
        await asyncio.sleep(0.001)
        assert box.loop.time() == 0.001

    async def main() -> None:
        box.loop.spawn(process, work())
        await other()
        await asyncio.sleep(30)

    box.loop.run(main())
    assert times[0] > 0.2
    assert times[1] > 0


def test_a_dead_process_writes_nothing_more() -> None:
    box = Box()
    file = box.disk.open("/a", create=True)
    old = box.disk
    disk = box.kill()
    with pytest.raises(OSError, match="dead"):
        file.append([b"x"])
    with pytest.raises(OSError, match="dead"):
        old.write_file("/b", b"x")
    assert disk.list("/") == ["a"]


def test_a_lock_ends_with_its_process_and_not_before() -> None:
    box = Box()
    lock = box.disk.lock("/lock")
    with pytest.raises(BlockingIOError):
        box.disk.lock("/lock")
    disk = box.kill()
    disk.lock("/lock")
    # What is left of the dead process does not free it.
    lock.release()
    with pytest.raises(BlockingIOError):
        disk.lock("/lock")


def test_the_boot_id_changes_with_the_machine_only() -> None:
    box = Box()
    first = box.disk.boot_id()
    assert box.kill().boot_id() == first
    assert box.lose_power().boot_id() != first


def test_folders_move_with_what_is_in_them() -> None:
    box = Box()
    box.disk.make_dirs("/data/t-0")
    box.disk.write_file("/data/t-0/a", b"x")
    box.disk.rename("/data/t-0", "/data/gone")
    assert box.disk.list("/data") == ["gone"]
    assert box.disk.read_file("/data/gone/a") == b"x"
    assert box.disk.exists("/data/gone/")
    assert not box.disk.exists("/data/gone/a/")
    box.disk.remove_tree("/data/gone")
    assert box.volume.used_bytes == 0
    with pytest.raises(FileNotFoundError):
        box.disk.read_file("/data/gone/a")
