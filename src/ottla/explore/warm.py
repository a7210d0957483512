"""What runs come to load and compile of ours is so before the first one: all are forked from one process.

A node loads messages and handlers when they are first asked for, which took more than half of a short run. It
is the same for all runs, whatever they need: where something lies in memory must not hang on what ran before.
What a run needs beyond it is loaded in that run. What a program imports in a run stays a part of that run.

Then a run without programs is rehearsed: Python makes code quicker that has run some times, and each run
would begin by that anew, in memory that it copies for it.
"""

from __future__ import annotations

import sys
from importlib import import_module

from ottla.broker.gate import load_handlers
from ottla.explore.programs.runner import run_seed
from ottla.explore.programs.world import World
from ottla.wire import messages
from ottla.wire.apis import METADATA
from ottla.wire.codec import pieces_writer

# What a node loads when it starts, and when it first leads, follows and answers.
MODULES = (
    "encodings.utf_16_le",
    "kio.static.constants",
    "ottla.broker.views.cluster",
    "ottla.broker.views.configs",
    "ottla.broker.views.topics",
    "ottla.env.pulse",
    "ottla.metadata.leadership",
    "ottla.metadata.leadership_plan",
    "ottla.metadata.liveness",
    "ottla.metadata.membership",
    "ottla.metadata.reassignment",
    "ottla.replication.fetchers",
    "ottla.replication.flushing",
    "ottla.replication.followed",
    "ottla.replication.follower",
    "ottla.replication.quiet",
    "ottla.security.refused",
)
# The versions of requests, by API key: of other nodes, and of programs that have imported these packages.
OF_NODES = {1: 17, 24: 5, 27: 2}
OF_PACKAGES = {
    "aiokafka": {
        **dict.fromkeys((18, 22, 24, 25, 26, 28), 0),
        **dict.fromkeys((10, 12, 13), 1),
        **dict.fromkeys((2, 8, 9, 14), 3),
        **dict.fromkeys((3, 11), 5),
        0: 7,
        1: 11,
    },
    "kafka": {0: 9, 1: 12, 2: 11, 3: 13, 8: 8, 9: 8, 10: 6, 11: 7, 12: 4, 14: 5, 18: 4, 22: 4},
}


# Of the run that is rehearsed; and how long it takes until nodes have done what they do all the time.
SEED, NODES = 0, 3
TOPICS = {"rehearsed": 2}
REHEARSED_S = 2.0


def up() -> None:
    """Load and compile it, and rehearse a run."""
    for name in MODULES:
        import_module(name)
    load_handlers()
    packages = [versions for package, versions in OF_PACKAGES.items() if package in sys.modules]
    for versions in (OF_NODES, *packages):
        for api_key, version in versions.items():
            messages.compile_now("request", api_key, version)
            messages.compile_now("response", api_key, version)
            if api_key == METADATA:
                pieces_writer(messages.element(METADATA, version, "topics"))
    # Should it fail, each run fails in the same way, and tells it.
    run_seed(_rehearsed, World(SEED, nodes=NODES, topics=TOPICS, faults="calm"))


async def _rehearsed(world: World) -> None:
    await world.run(REHEARSED_S)
    await world.settle(REHEARSED_S)
    await world.records(*TOPICS)


def loaded() -> set[object]:
    """What is loaded and compiled in this process that `up` might have."""
    ours = {name for name in sys.modules if name.partition(".")[0] in ("encodings", "kio", "ottla")}
    return ours | set(messages.compiled())
