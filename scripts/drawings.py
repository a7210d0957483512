"""The drawings of docs/pictures: the layers of the code, a replicated Produce, a test, a failover, racks.

`make docs` writes them, `make check` tells where one is not what is drawn here.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from sketch import AMBER, BLUE, CARD, FAINT, GREEN, GREY, RED, WHITE, Colours, Drawing

ROOT = Path(__file__).resolve().parent.parent

# ------------------------------------------------------------ the house

# The layers of pyproject.toml, from above: what each is, and its colour.
LAYERS: dict[str, tuple[str, Colours]] = {
    "cli": ("the commands of ottla", AMBER),
    "processes": ("several nodes by one command", AMBER),
    "process": ("ottla serve: settings, signals, exit code", AMBER),
    "testing": ("the embedded broker, faults, the control port", AMBER),
    "explore": ("the simulator", AMBER),
    "node": ("builds all below with the real clock, disk, network", GREY),
    "observe": ("metrics, health and traces by HTTP", GREEN),
    "broker": ("listeners, connections, one file for each API", BLUE),
    "coordinators": ("groups and transactions: pure machines", BLUE),
    "replication": ("leading and following partitions, the ISR", BLUE),
    "metadata": ("the image of the cluster, elections, the controller", BLUE),
    "log": ("segments, indexes, recovery, compaction", BLUE),
    "telemetry": ("metrics that clients send", GREEN),
    "security": ("ACLs, SASL, quotas: decided in memory", GREEN),
    "wire": ("framing, the codec, record batches", GREEN),
    "env": ("clock, disk and network as protocols", GREY),
    "config": ("Kafka's configuration names", GREY),
}
# What stands outside, on the left and on the right: the layer it meets, its words, and how much lower it is
# drawn, since those of neighbours need more room.
LEFT = {
    "cli": ("a terminal", "ottla produce, top, …", 0),
    "testing": ("your tests", "Python, or any language", 0),
    "observe": ("Prometheus", "or OpenTelemetry", -10),
    "broker": ("Kafka clients", "Kafka's protocol", 10),
}
RIGHT = {
    "replication": ("other nodes", "Fetch, as consumers do", -22),
    "metadata": ("SQLite, or etcd", "one node, or a cluster", 0),
    "log": ("the disk", "Kafka's files", 22),
}


def layers() -> list[str]:
    """The layers with a drawing of their own: those that are packages or modules of one name."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = next(one["layers"] for one in contracts if one["type"] == "layers")
    return [name for name in listed if re.fullmatch(r"\w+", name)]


def house() -> str:
    names = layers()
    step, top, left, width = 34, 46, 232, 456
    drawing = Drawing(920, top + step * (len(names) + 1) + 26, "The layers of Ottla's code")
    drawing.text(
        left + width / 2, 28, "src/ottla: each layer imports only from below", bold=True, anchor="middle"
    )
    at: dict[str, float] = {}
    for number, name in enumerate(names):
        if name not in LAYERS:
            raise SystemExit(f"scripts/drawings.py: LAYERS does not say what the layer {name!r} is")
        words, colours = LAYERS[name]
        y = at[name] = top + number * step
        drawing.box(left, y, width, step - 5, colours, radius=4)
        drawing.text(left + 12, y + 19, name, bold=True, mono=True)
        drawing.text(left + 128, y + 19, words)
    y = top + len(names) * step
    drawing.box(left, y, width, step - 5, GREY, radius=4)
    drawing.text(left + 12, y + 19, "metrics, errors, types, text, numbers, …", mono=True)
    for name, (what, how, shift) in LEFT.items():
        middle = at[name] + (step - 5) / 2
        drawing.named_box(20, middle + shift - 22, 150, 44, what, how)
        drawing.arrow(171, middle + shift, left - 3, middle)
    for name, (what, how, shift) in RIGHT.items():
        middle = at[name] + (step - 5) / 2
        drawing.named_box(752, middle + shift - 22, 150, 44, what, how)
        drawing.arrow(left + width + 2, middle, 749, middle + shift)
    return drawing.svg()


# ------------------------------------------------------------ sequences


class Lane(NamedTuple):
    """Somebody who takes part in a sequence: where, and what stands below the name."""

    x: float
    below: str = ""
    colours: Colours = WHITE


class Sequence:
    """Who says what to whom, from above downwards."""

    def __init__(self, height: int, title: str, lanes: dict[str, Lane]) -> None:
        self.drawing = Drawing(940, height, title)
        self._lanes = lanes
        for name, lane in lanes.items():
            self.drawing.named_box(lane.x - 78, 16, 156, 46, name, lane.below, lane.colours)
            self.drawing.line(lane.x, 62, lane.x, height - 16, dashed=True)

    def say(self, y: float, sender: str, receiver: str, words: str, *, answer: bool = False) -> None:
        x1, x2 = self._lanes[sender].x, self._lanes[receiver].x
        side = 1 if x2 > x1 else -1
        self.drawing.arrow(x1 + 5 * side, y, x2 - 5 * side, y, dashed=answer)
        # The words hide the lines behind them.
        middle, wide = (x1 + x2) / 2, 7.0 * len(words) + 8
        self.drawing.box(middle - wide / 2, y - 18, wide, 14, (CARD, CARD), radius=2)
        self.drawing.text(middle, y - 7, words, size=12, anchor="middle")

    def note(self, y: float, name: str, *lines: str) -> None:
        lane, tall = self._lanes[name], 10 + 17 * len(lines)
        self.drawing.box(lane.x - 88, y, 176, tall, lane.colours, radius=4)
        for number, line in enumerate(lines):
            self.drawing.text(lane.x, y + 18 + 17 * number, line, size=12, anchor="middle")

    def svg(self, legend: tuple[float, float]) -> str:
        """``legend``: where it says what dashed arrows are."""
        self.drawing.text(*legend, "dashed: an answer", size=12, colour=FAINT)
        return self.drawing.svg()


def replicated_produce() -> str:
    follower = "follower, in the ISR"
    lanes = {
        "producer": Lane(90),
        "node 1": Lane(290, "leader", BLUE),
        "node 2": Lane(480, follower, GREEN),
        "node 3": Lane(670, follower, GREEN),
        "consumer": Lane(850),
    }
    drawn = Sequence(560, "A replicated Produce with acks=all", lanes)
    drawn.say(104, "node 2", "node 1", "Fetch from 41 (waits)")
    drawn.say(134, "node 3", "node 1", "Fetch from 41 (waits)")
    drawn.say(164, "consumer", "node 1", "Fetch from 41 (waits)")
    drawn.say(198, "producer", "node 1", "Produce, acks=all")
    drawn.note(214, "node 1", "appends at offset 41", "log end offset 42", "high watermark still 41")
    drawn.say(304, "node 1", "node 2", "the batch", answer=True)
    drawn.say(330, "node 1", "node 3", "the batch", answer=True)
    drawn.note(344, "node 2", "appends it as it is")
    drawn.note(344, "node 3", "appends it as it is")
    drawn.say(402, "node 2", "node 1", "Fetch from 42")
    drawn.say(432, "node 3", "node 1", "Fetch from 42")
    drawn.note(446, "node 1", "the whole ISR has 41:", "high watermark 42")
    drawn.say(514, "node 1", "producer", "offset 41", answer=True)
    drawn.say(514, "node 1", "consumer", "the batch", answer=True)
    return drawn.svg((100, 546))


def test_with_faults() -> str:
    lanes = {
        "test": Lane(120, "", AMBER),
        "producer": Lane(420, "idempotent"),
        "broker": Lane(780, "ottla.testing.Broker", BLUE),
    }
    drawn = Sequence(484, "A test in which the response to a Produce request is lost", lanes)
    drawn.say(100, "test", "broker", 'faults.drop("Produce", after=True, times=1)')
    drawn.say(140, "producer", "broker", "Produce, sequence 0")
    drawn.note(148, "broker", "the record is appended", "at offset 0")
    drawn.say(212, "broker", "producer", "no response: the connection is closed", answer=True)
    drawn.say(250, "producer", "broker", "Produce, sequence 0")
    drawn.note(258, "broker", "the sequence is known:", "nothing is appended")
    drawn.say(322, "broker", "producer", "offset 0", answer=True)
    drawn.say(356, "test", "broker", 'faults.wait_for("Produce", 2)')
    drawn.say(384, "broker", "test", "both requests", answer=True)
    drawn.say(418, "test", "broker", 'records("orders")')
    drawn.say(446, "broker", "test", "one record", answer=True)
    return drawn.svg((130, 472))


# ------------------------------------------------------------ a failover

STEPS = [
    ("node 1 is killed", "its connections break"),
    ("node 3 notices", "deletes the registration"),
    ("all nodes know", "by their watch at etcd"),
    ("node 2 is elected", "by node 3, the controller"),
    ("node 2 leads", "node 3 fetches from it"),
    ("clients go on", "at node 2"),
]


def failover() -> str:
    drawing = Drawing(940, 400, "A failover, from the death of a leader to the next record")
    first, last = 170, 880
    columns = [first + 20 + (last - first - 60) * number / (len(STEPS) - 1) for number in range(len(STEPS))]
    for number, (x, (what, how)) in enumerate(zip(columns, STEPS, strict=True), 1):
        drawing.line(x, 66, x, 340, dashed=True)
        drawing.text(x, 28, f"{number}. {what}", size=12, bold=True, anchor="middle")
        drawing.text(x, 46, how, size=11, colour=FAINT, anchor="middle")
    lanes = {"node 1": 84, "node 2": 134, "node 3": 184, "etcd": 234, "clients": 284}

    def bar(lane: str, x1: float, x2: float, words: str, colours: Colours) -> None:
        y = lanes[lane]
        drawing.box(x1, y, x2 - x1, 34, colours, radius=4)
        drawing.text((x1 + x2) / 2, y + 22, words, size=12, anchor="middle")

    for lane, y in lanes.items():
        below = {"node 1": "leader", "node 2": "follower", "node 3": "controller"}.get(lane, "")
        drawing.text(20, y + (16 if below else 22), lane, bold=True)
        if below:
            drawing.text(20, y + 31, below, size=11, colour=FAINT)
    c = columns
    bar("node 1", 110, c[0], "leads", BLUE)
    bar("node 1", c[0], last + 40, "down", RED)
    bar("node 2", 110, c[0], "follows", GREEN)
    bar("node 2", c[0], c[4], "cannot fetch", GREY)
    bar("node 2", c[4], last + 40, "leads, epoch 6", BLUE)
    bar("node 3", 110, c[0], "follows", GREEN)
    bar("node 3", c[0], c[4], "cannot fetch, but controls", GREY)
    bar("node 3", c[4], last + 40, "follows node 2", GREEN)
    bar("etcd", c[1], c[2], "brokers/1 gone", AMBER)
    bar("etcd", c[3], c[4], "leader 2, epoch 6", AMBER)
    bar("clients", 110, c[0], "served", GREY)
    bar("clients", c[0], c[5], "retry: the connection breaks, then NOT_LEADER_OR_FOLLOWER", RED)
    bar("clients", c[5], last + 40, "served", GREY)
    drawing.arrow(110, 344, last + 40, 344)
    drawing.text(last + 40, 362, "time", size=12, colour=FAINT, anchor="end")
    drawing.text(
        110, 366, "Steps 1 to 5 take some 0.1 s, because a process that is killed closes its connections."
    )
    drawing.text(
        110, 385, "If the machine vanishes, step 2 waits for the lease: broker.session.timeout.ms, 9 s."
    )
    return drawing.svg()


# ------------------------------------------------------------ a cluster with racks

RACKS = {"a": (1, 2), "b": (3, 4), "c": (5, 6)}
# Of each node, its replicas: the partition, and whether it leads.
REPLICAS = {
    1: [("orders-0", True), ("orders-3", False)],
    2: [("orders-1", False), ("orders-2", False)],
    3: [("orders-0", False), ("orders-1", True)],
    4: [("orders-2", False), ("orders-3", True)],
    5: [("orders-1", False), ("orders-2", True)],
    6: [("orders-0", False), ("orders-3", False)],
}


def racks() -> str:
    drawing = Drawing(940, 404, "A cluster of six nodes in three racks")
    top = 92
    for number, (rack, nodes) in enumerate(RACKS.items()):
        x = 24 + number * 302
        drawing.box(x, top, 288, 268, GREY, radius=10)
        drawing.text(x + 14, top + 22, f"rack {rack}", bold=True)
        for place, node in enumerate(nodes):
            left = x + 14 + place * 134
            drawing.box(left, top + 34, 126, 150, WHITE)
            drawing.text(left + 12, top + 56, f"node {node}", bold=True)
            drawing.text(left + 12, top + 73, f"--rack {rack}", size=11, mono=True, colour=FAINT)
            for line, (partition, leads) in enumerate(REPLICAS[node]):
                y = top + 86 + line * 44
                drawing.box(left + 10, y, 106, 36, BLUE if leads else GREEN, radius=4)
                drawing.text(left + 63, y + 16, partition, size=12, bold=leads, anchor="middle")
                role = "leader" if leads else "follower"
                drawing.text(left + 63, y + 30, role, size=11, colour=FAINT, anchor="middle")
        drawing.named_box(x + 14, top + 196, 260, 58, f"etcd {number + 1}", "one of three members", AMBER)
    drawing.named_box(60, 16, 190, 50, "producer", "writes to the leader")
    drawing.named_box(692, 16, 214, 50, "consumer with client.rack=c", "reads in its own rack")
    for x in (144, 882):
        drawing.arrow(x, 68, x, top + 84)
    words = "Each rack has one replica of each partition and one member of etcd, so one rack may fail."
    drawing.text(470, top + 294, words, anchor="middle")
    return drawing.svg()


PICTURES = {
    "pictures/house.svg": house,
    "pictures/replicated-produce.svg": replicated_produce,
    "pictures/test-with-faults.svg": test_with_faults,
    "pictures/failover.svg": failover,
    "pictures/racks.svg": racks,
}
