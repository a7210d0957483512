"""The application that is watched: jobs come as files into a folder, and are worked off.

They are worked off twice a second, so that a few are always there. A burst, when the file `burst` appears
beside the folder, is more than can be done at once, and takes some seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import time
import zlib
from pathlib import Path

from examples.common.command import stop_event

TICK_S = 0.1
ROUND_S = 0.5
JOBS_PER_S = 20.0
DONE_PER_S = 80.0
# How much of both one tick may catch up with, after the process has slept.
CATCH_UP_S = 1.0
BURST = 400
JOB_BYTES = 4096


class Spool:
    """The folder. Jobs are done in the order of their names, which is that of their arrival."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder = folder
        self._chance = chance
        self._number = 0

    def arrive(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            (self._folder / f"{self._number:08}.job").write_bytes(self._chance.randbytes(JOB_BYTES))

    def work(self, count: int) -> None:
        for path in sorted(self._folder.glob("*.job"))[:count]:
            zlib.compress(path.read_bytes(), 6)
            path.unlink()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--directory", type=Path, required=True, help="where `spool`, `burst` and the pid are"
    )
    arguments = options.parse_args()
    stop = stop_event()
    directory: Path = arguments.directory
    chance = random.Random(1)
    folder = directory / "spool"
    folder.mkdir(exist_ok=True)
    (directory / "worker.pid").write_text(str(os.getpid()))
    spool = Spool(folder, chance)
    last_s = round_s = time.monotonic()
    arriving = 0.0
    while not stop.wait(TICK_S):
        now_s = time.monotonic()
        passed_s, last_s = min(now_s - last_s, CATCH_UP_S), now_s
        # Done first: what has just come waits for the next round.
        if now_s - round_s >= ROUND_S:
            spool.work(round(min(now_s - round_s, CATCH_UP_S) * DONE_PER_S))
            round_s = now_s
        arriving = arriving % 1 + passed_s * JOBS_PER_S * chance.uniform(0.5, 1.5)
        spool.arrive(int(arriving))
        burst = directory / "burst"
        if burst.exists():
            burst.unlink()
            spool.arrive(BURST)


if __name__ == "__main__":
    main()
