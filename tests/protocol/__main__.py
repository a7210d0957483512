"""python -m protocol KAFKA OTTLA: ask two brokers the same, and list where their answers differ.

Give it two fresh brokers of one node, whose id is 1, with `offsets.topic.num.partitions=4`:
`make differences KAFKA=HOST:PORT OTTLA=HOST:PORT`.
`--record FOLDER` writes the first one's answers down instead, which is how `protocol/kafka` came about;
`--fuzz N` goes on with N random requests, `--walk N` with a random walk of N steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from pathlib import Path

from protocol import differing, recorded
from protocol.random_requests import ask_at_random
from protocol.random_walks import walk_at_random


def main() -> int:
    parser = argparse.ArgumentParser(prog="protocol", description=__doc__)
    parser.add_argument("one", metavar="KAFKA", help="HOST:PORT of a broker, say Apache Kafka")
    parser.add_argument("other", metavar="OTTLA", nargs="?", help="HOST:PORT of another")
    parser.add_argument(
        "--record", type=Path, metavar="FOLDER", help="write the first one's answers into FOLDER"
    )
    parser.add_argument("--all", action="store_true", help="those differences as well that are meant")
    parser.add_argument("-k", default="", metavar="WORD", help="only sequences with WORD in their names")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="then N requests at random")
    parser.add_argument("--walk", type=int, default=0, metavar="N", help="then a random walk of N steps")
    parser.add_argument("--seed", type=int, default=1, help="of the random requests")
    parser.add_argument(
        "--secured", action="store_true", help="ask of security: of brokers with sequence_security.SETTINGS"
    )
    options = parser.parse_args()
    prefix = f"q{uuid.uuid4().hex[:6]}-"
    ours = recorded.play(options.one, prefix, options.k, secured=options.secured)
    if options.record is not None:
        recorded.write(options.record, ours)
        return 0
    if options.other is None:
        print(json.dumps(ours, indent=1))
        return 0
    theirs = recorded.play(options.other, prefix, options.k, secured=options.secured)
    lines = differing.listed(ours, theirs, all_of_them=options.all)
    for line in lines:
        print(line)
    if options.fuzz:
        lines += ask_at_random(options.one, options.other, options.seed, options.fuzz)
    if options.walk:
        lines += walk_at_random(options.one, options.other, prefix, options.seed, options.walk)
    print(f"{len(lines)} differences", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
