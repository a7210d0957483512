"""Machines for tests: network namespaces on one bridge, each with its own address, that can be cut apart.

``namespaces(names)`` makes them and takes them away again, also after a failure; those that a killed test
left behind go when the next one begins. It needs root, iproute2 and a kernel with veth and bridges; where
that is not so it raises NotPermitted, which says what is in the way.

A packet is lost on its way from one machine to another because the sender is told a hardware address that
nobody has. So it vanishes in silence, in one direction only, and neither side hears of it; connections that
exist stay, and go on when the way is free again.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path("/run/netns")
NAME = re.compile(r"ottla-(\d+)-.*")
CLONE_NEWNET = 0x40000000
HUB = "hub"
# Nobody's hardware address.
NOWHERE = "02:00:00:00:ff:ff"


class NotPermitted(Exception):
    """Namespaces cannot be made here; the message says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """Where a process can run: ``command`` makes a command line run there, ``address`` is its own."""

    name: str
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()

    def command(self, *words: str) -> list[str]:
        """The command line that runs ``words`` there, in one process, which dies with the thread that
        started it."""
        return [*self.prefix, "setpriv", "--pdeathsig", "KILL", *words]


@dataclass(slots=True)
class Namespaces:
    """Machines that reach each other. ``cut`` and ``mend`` at any time."""

    hosts: dict[str, Host]
    _macs: dict[str, str]
    # (from, to) of the ways on which packets vanish.
    _lost: dict[tuple[str, str], None] = field(default_factory=dict)

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Lose all packets from ``source`` to ``target``, and the other way too if ``both``."""
        for way in ((source, target), (target, source))[: 1 + both]:
            if way not in self._lost:
                self._lost[way] = None
                self._direct(*way, NOWHERE)

    def mend(self) -> None:
        """All ways are free again."""
        for source, target in self._lost:
            self._direct(source, target, self._macs[target])
        self._lost.clear()

    def _direct(self, source: str, target: str, mac: str) -> None:
        _ip(
            f"-n {_full(source)} neigh replace {self.hosts[target].address} lladdr {mac} nud permanent "
            "dev eth0"
        )

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread, and threads and processes that it starts, are on that machine."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(FOLDER / _full(name), os.O_RDONLY)
        try:
            _set_namespace(there)
            try:
                yield
            finally:
                _set_namespace(before)
        finally:
            os.close(there)
            os.close(before)


@contextmanager
def namespaces(names: Sequence[str]) -> Iterator[Namespaces]:
    """Make a machine for each name, on a network that nothing else is on. NotPermitted."""
    if os.geteuid() != 0:
        raise NotPermitted("network namespaces need root")
    for tool in ("ip", "nsenter", "setpriv"):
        if shutil.which(tool) is None:
            raise NotPermitted(f"there is no {tool} (Debian's iproute2 and util-linux)")
    _clear(lambda owner: not Path(f"/proc/{owner}").exists())
    try:
        try:
            made = _make(names)
        except subprocess.CalledProcessError as error:
            raise NotPermitted(f"network namespaces cannot be made: {error.stderr.strip()}") from error
        yield made
    finally:
        _clear(lambda owner: owner == os.getpid())


def _make(names: Sequence[str]) -> Namespaces:
    hosts, macs = {}, {}
    _ip(f"netns add {_full(HUB)}")
    _ip(f"-n {_full(HUB)} link add bridge0 type bridge")
    _ip(f"-n {_full(HUB)} link set bridge0 up")
    for index, name in enumerate(names, 1):
        full = _full(name)
        prefix = ("nsenter", f"--net={FOLDER / full}")
        hosts[name] = Host(name, f"10.91.0.{index}", prefix)
        macs[name] = f"02:00:00:00:00:{index:02x}"
        _ip(f"netns add {full}")
        _ip(
            f"-n {_full(HUB)} link add port{index} type veth peer name eth0 address {macs[name]} netns {full}"
        )
        _ip(f"-n {_full(HUB)} link set port{index} master bridge0 up")
        _ip(f"-n {full} link set lo up")
        _ip(f"-n {full} addr add {hosts[name].address}/24 dev eth0")
        _ip(f"-n {full} link set eth0 up")
    made = Namespaces(hosts, macs)
    for source in names:
        for target in names:
            if source != target:
                # Never asked for, so that no answer undoes a cut.
                made._direct(source, target, macs[target])
    return made


def _full(name: str) -> str:
    return f"ottla-{os.getpid()}-{name}"


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True, timeout=60)


def _clear(gone: Callable[[int], bool]) -> None:
    """Delete the namespaces of tests of which ``gone(pid)`` says so. Processes in them go on to their end."""
    for path in FOLDER.glob("ottla-*"):
        found = NAME.fullmatch(path.name)
        if found is not None and gone(int(found[1])):
            subprocess.run(["ip", "netns", "del", path.name], check=False, capture_output=True, timeout=60)


def _set_namespace(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
