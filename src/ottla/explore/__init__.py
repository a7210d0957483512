"""Whole clusters in one process under virtual time; the broker never imports this.

``world`` has the machines: a loop with virtual time, disks, the network between them, the metadata store.
``campaign`` is our own use of it (`ottla simulate`): clients, faults, and the invariants that have to hold.
The product's own code runs in both, unchanged: only clock, disk, network and metadata store are not real.
docs/FAULTS-IN-DETAIL.md lists which faults are injected, and which of them must be survived.

``programs`` is users' use of it. A test is made of `explore`, `World` and `checks`:

    @explore(seeds=500, topics={"orders": 3, "shipped": 3})
    async def test_every_order_is_shipped(world):
        world.program("shop", shop, world.bootstrap)
        world.program("shipping", shipping, world.bootstrap, restarts=True)
        await world.run(30)
        await world.settle()
        checks.nothing_lost(await world.records("orders"), await world.records("shipped"))

``real`` is the same in real time, for programs with threads or in other languages: `explore_real`.
"""

from __future__ import annotations

from typing import Any

# Where each of the names is: what users import is loaded when they do.
NAMES = {
    "Broken": "ottla.explore.programs.checks",
    "Found": "ottla.explore.exploring",
    "RealWorld": "ottla.explore.real.world",
    "World": "ottla.explore.programs.world",
    "checks": "ottla.explore.programs",
    "explore": "ottla.explore.exploring",
    "explore_real": "ottla.explore.real.exploring",
}
__all__ = ["Broken", "Found", "RealWorld", "World", "checks", "explore", "explore_real"]


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name == "checks":
        return import_module("ottla.explore.programs.checks")
    return getattr(import_module(NAMES[name]), name)
