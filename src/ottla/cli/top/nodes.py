"""The nodes of a cluster, asked at the same time, each over a connection of its own, with short deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from ottla.cli.client import parse_bootstrap
from ottla.cli.direct import Address, DirectConnection, Unanswered, security_of
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.top.snapshot import Broker

T = TypeVar("T")

ANSWER_TIMEOUT_S = 3.0
# How long one that answers is looked for.
ANY_TIMEOUT_S = 10.0
# A node that has let its deadline pass is left alone for so long.
SILENT_S = 10.0
ASKED_AT_ONCE_MAX = 16

# Asks the node that it is made for: the name of a request, and its fields.
Ask = Callable[..., Any]


def at_once(work: Sequence[Callable[[], T]]) -> list[T]:
    """What each piece of work returns, each of which waits for somebody; or the first error that one raises.

    By threads that do not keep the process from ending, as those of a pool do: who quits does not wait for
    a node that hangs.
    """
    if len(work) == 1:
        return [work[0]()]
    results: dict[int, T] = {}
    errors: list[Exception] = []

    def run(first: int) -> None:
        try:
            for index in range(first, len(work), ASKED_AT_ONCE_MAX):
                results[index] = work[index]()
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for this
            errors.append(error)

    threads = [Thread(target=run, args=(i,), daemon=True) for i in range(min(len(work), ASKED_AT_ONCE_MAX))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(work))]


class Nodes:
    """``learn`` who is there, ``ask_any`` or ``ask_each``; ``close`` in the end."""

    def __init__(
        self,
        bootstrap: str,
        properties: Iterable[str] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bootstrap = parse_bootstrap(bootstrap)
        self._security = security_of(properties)
        self._addresses: dict[int, Address] = {}
        self._connections: dict[Address, DirectConnection] = {}
        # Until when whom is not asked, and why not.
        self._silent: dict[Address, tuple[float, str]] = {}
        self._now_s = now_s

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def learn(self, brokers: Mapping[int, Broker]) -> None:
        """These are there. Connections to others are closed."""
        self._addresses = {
            node: (broker.host, broker.port)
            for node, broker in brokers.items()
            if not broker.is_fenced and broker.host and broker.port > 0
        }
        known = {*self._addresses.values(), *self._bootstrap}
        for address in self._connections.keys() - known:
            self._forget(address)
        self._silent = {address: why for address, why in self._silent.items() if address in known}

    def silent(self) -> dict[int, str]:
        """The nodes that have been asked and have not answered, and why."""
        return {
            node: self._silent[address][1]
            for node, address in self._addresses.items()
            if address in self._silent
        }

    def ask_any(self, name: str, fields: Mapping[str, Any], **options: Any) -> Any:
        """The answer of any of them; those that answered before are asked first. CliError (unreachable) where
        nobody answers."""
        why = "no broker is known"
        ends_s = self._now_s() + ANY_TIMEOUT_S
        everyone = dict.fromkeys((*self._addresses.values(), *self._bootstrap))
        order = sorted(everyone, key=lambda one: (one in self._silent, one not in self._connections))
        for address in order:
            try:
                return self._ask(address, name, fields, **options)
            except Unanswered as error:
                why = str(error)
            if self._now_s() >= ends_s:
                # Of those that are left some may answer; they are the first to be asked next time.
                break
        raise CliError(f"cannot reach a broker: {why}", ExitCode.UNREACHABLE)

    def ask_each(self, work: Mapping[int, Callable[[Ask], T]]) -> dict[int, T]:
        """Have some work done with each of some nodes, at the same time. Those that do not answer, or not to
        this, have no result: ``silent`` says why."""
        ready = {node: self._addresses[node] for node in work if self._is_to_be_asked(node)}
        outcomes = at_once([partial(self._work, address, work[node]) for node, address in ready.items()])
        return {node: found[0] for node, found in zip(ready, outcomes, strict=True) if found is not None}

    def _is_to_be_asked(self, node: int) -> bool:
        address = self._addresses.get(node)
        if address is None:
            return False
        silent = self._silent.get(address)
        return silent is None or silent[0] <= self._now_s()

    def _work(self, address: Address, work: Callable[[Ask], T]) -> tuple[T] | None:
        """Its result in a tuple; None where there is none."""

        def ask(name: str, fields: Mapping[str, Any], **options: Any) -> Any:
            return self._ask(address, name, fields, **options)

        try:
            return (work(ask),)
        except Unanswered:
            return None
        except CliError as error:
            # It does not know the request, or the login failed.
            self._silent[address] = (self._now_s() + SILENT_S, str(error))
            return None

    def _ask(self, address: Address, name: str, fields: Mapping[str, Any], **options: Any) -> Any:
        began_s = self._now_s()
        connection = self._connections.get(address)
        if connection is not None:
            try:
                return connection.ask(name, fields, **options)
            except Unanswered:
                # It may be just this connection that has ended.
                self._forget(address)
        try:
            if self._now_s() - began_s >= ANSWER_TIMEOUT_S / 2:
                raise Unanswered(f"{address[0]}:{address[1]}: no answer in time")
            connection = self._connections[address] = DirectConnection(
                address, ANSWER_TIMEOUT_S, self._security
            )
            answer = connection.ask(name, fields, **options)
        except Unanswered as error:
            self._forget(address)
            now_s = self._now_s()
            # Where it says at once that there is nobody, it may be asked again at any time.
            until_s = now_s + (SILENT_S if now_s - began_s >= ANSWER_TIMEOUT_S / 2 else 0)
            self._silent[address] = (until_s, str(error))
            raise
        self._silent.pop(address, None)
        return answer

    def _forget(self, address: Address) -> None:
        connection = self._connections.pop(address, None)
        if connection is not None:
            connection.close()
