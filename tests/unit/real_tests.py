"""Tests in real time that `ottla explore` runs in a test of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import real_programs

from ottla.explore import explore_real

if TYPE_CHECKING:
    from ottla.explore import RealWorld


def greet(order: real_programs.Order) -> None:
    real_programs.greet(order)


@explore_real(seeds=3, nodes=1, faults="calm")
def odd_seeds_pass(world: RealWorld) -> None:
    shop = world.program("shop", greet, real_programs.Order(world.seed))
    world.settle()
    assert shop.done and world.seed % 2, "an even seed"
