"""librdkafka in a run: its clients may be imported, since a file may have tests in real time, and not used.

It has threads and sockets of its own, of which no audit event tells. Its classes in C cannot be changed, so
they are replaced in their module as soon as that is loaded, before others take them from there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from ottla.explore.programs import current
from ottla.explore.programs.refusing import refused

MODULE = "confluent_kafka.cimpl"
# The others of the package derive from these, or have one.
CLIENTS = ("Producer", "Consumer", "ShareConsumer", "_AdminClientImpl")
REASON = (
    "librdkafka (confluent-kafka) has threads and sockets of its own, which cannot be in virtual time: "
    "test it in real time, with `ottla.explore.explore_real`"
)


def _refuse_in_run() -> None:
    if current.loop() is not None:
        raise refused(REASON)


def _refusing(real: Any) -> Any:
    def new(cls: Any, *arguments: Any, **named: Any) -> Any:
        _refuse_in_run()
        return real.__new__(cls, *arguments, **named)

    def get(client: Any, name: str) -> Any:
        # One that was made when the file was imported has left its threads in another process.
        _refuse_in_run()
        return real.__getattribute__(client, name)

    about = {"__doc__": real.__doc__, "__module__": real.__module__, "__slots__": ()}
    return type(real.__name__, (real,), {"__new__": new, "__getattribute__": get} | about)


def guard(module: ModuleType) -> None:
    """Refuse its clients in runs from now on."""
    for name in CLIENTS:
        if hasattr(module, name):
            setattr(module, name, _refusing(getattr(module, name)))


class _Finder:
    """Has the module guarded when it is loaded."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == MODULE else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def load(module: ModuleType) -> None:
                execute(module)
                guard(module)

            spec.loader.exec_module = load  # type: ignore[method-assign]
        return spec


def install() -> None:
    """From now on, in a process that has not loaded it; a second call changes nothing."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
