"""`python -m sim`: run one seed, or a range of them, and say what held."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack

from sim.cluster import Options, Result, run
from sim.faults import KINDS
from sim.txn_cluster import run_transactions

SHOWN_LINES = 60


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", help="a range such as 1..200, or 1.. for as long as you like")
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long faults strike, in virtual time")
    parser.add_argument("--faults", help=f"only these kinds, separated by commas; of {', '.join(KINDS)}")
    parser.add_argument("--transactions", action="store_true", help="clients work in transactions")
    parser.add_argument("--trace", help="write everything that happens to this file")
    parser.add_argument("--verbose", action="store_true", help="show also what nodes log at INFO")
    parser.add_argument("--lines", type=int, default=SHOWN_LINES, help="lines of the trace after a violation")
    return parser.parse_args(arguments)


def show(result: Result, took_s: float, lines: int) -> None:
    print(
        f"seed {result.seed}: {result.virtual_s:.1f} virtual seconds, {result.steps} steps in {took_s:.2f} s"
    )
    for name, value in result.summary.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"  {name}: {shown}")
    print(f"  trace: {result.digest}")
    if result.violation is not None:
        print("  the last of the trace:")
        for line in result.lines[-lines:]:
            print(f"    {line}")
        print(f"VIOLATED with seed {result.seed}: {result.violation}")


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    first, last = args.seed, args.seed
    if args.seeds:
        start, _, end = args.seeds.partition("..")
        first, last = int(start), int(end) if end else sys.maxsize
    only = None if args.faults is None else [name for name in args.faults.split(",") if name]
    failed = []
    with ExitStack() as stack:
        trace = stack.enter_context(open(args.trace, "w")) if args.trace else None
        seed = first
        try:
            for seed in range(first, last + 1):
                began = time.perf_counter()
                options = Options(seed, args.nodes, args.seconds, only, trace, args.verbose)
                result = run_transactions(options) if args.transactions else run(options)
                took_s = time.perf_counter() - began
                if first == last or result.violation is not None:
                    show(result, took_s, args.lines if first == last else 0)
                if result.violation is not None:
                    failed.append(seed)
        except KeyboardInterrupt:
            # Told to stop: the seed that was under way does not count.
            seed -= 1
    if first != last:
        print(f"{seed - first + 1} seeds, {len(failed)} violated: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
