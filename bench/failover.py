"""How long partitions are without a leader after a fault: ``python bench/failover.py [rounds]``.

Three nodes with the default timeouts and three members of etcd on this machine, replication factor 3,
min.insync.replicas 2. It prints, for each kind of fault, how soon Metadata names another leader and the
longest time that an idempotent producer (acks=all) had no acknowledgement from a partition that lost its
leader. Machines are cut off only where network namespaces can be made (root).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "crash")]

from cluster_faults.failover import Failover, Outages, cut_off, kill, pause, stop  # noqa: E402
from cluster_faults.machines import cluster  # noqa: E402
from netns import NotPermitted, namespaces  # noqa: E402

ROUNDS = 8
SETTINGS = {"min.insync.replicas": "2"}


def cuts() -> bool:
    """Whether machines can be cut off here."""
    try:
        with namespaces(["probe"]):
            return True
    except NotPermitted as reason:
        print(f"nothing is cut off: {reason}")
        return False


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with (
        tempfile.TemporaryDirectory(prefix="ottla-failover-") as folder,
        cluster(Path(folder), SETTINGS, cuts=cuts()) as made,
        Failover(made) as failover,
    ):
        kinds = {"SIGKILL": kill, "SIGTERM": stop, "SIGSTOP": pause}
        if made.network is not None:
            kinds["cut off"] = cut_off(made)
        for name, harm in kinds.items():
            outages = Outages()
            # Those that take a session's time take long, and differ little.
            for _ in range(rounds if name.startswith("SIGK") or name == "SIGTERM" else max(1, rounds // 3)):
                failover.round(harm, outages)
            print(outages.show(name), flush=True)


if __name__ == "__main__":
    main()
