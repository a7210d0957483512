"""Carrying plans out, draining and describing, against a cluster that is a few dicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ottla.cli import drain, health, reassign
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.moves import report, runner, throttle
from ottla.cli.moves.outcome import compare
from ottla.cli.moves.requests import Broker, Elected, Ongoing, PartitionView, Requests, View, by_topic
from ottla.types import TopicPartition

Replicas = dict[TopicPartition, tuple[int, ...]]


def topic(name: str, *replicas: Sequence[int]) -> Replicas:
    return {TopicPartition(name, i): tuple(one) for i, one in enumerate(replicas)}


class FakeRequests(Requests):
    """A cluster that moves one partition each time that it is asked what moves."""

    def __init__(self, replicas: Replicas, nodes: Sequence[int], *, instant: bool = False) -> None:
        self.replicas = dict(replicas)
        self.nodes = list(nodes)
        self.instant = instant
        self.moving: dict[TopicPartition, tuple[int, ...]] = {}
        self.asked: list[Any] = []
        self.most_at_once = 0
        self.elected: list[TopicPartition] = []
        self.configs: dict[str, Mapping[str, str | None]] = {}

    def view(self) -> View:
        return View(
            brokers={node: Broker("h", 9000 + node, None) for node in self.nodes},
            partitions={
                p: PartitionView(replicas[0], replicas, replicas) for p, replicas in self.replicas.items()
            },
            ongoing=self._ongoing(),
        )

    def _ongoing(self) -> dict[TopicPartition, Ongoing]:
        return {
            p: Ongoing(
                tuple(dict.fromkeys((*new, *self.replicas[p]))),
                tuple(n for n in new if n not in self.replicas[p]),
                tuple(n for n in self.replicas[p] if n not in new),
            )
            for p, new in self.moving.items()
        }

    def ongoing(self) -> dict[TopicPartition, Ongoing]:
        if self.moving:
            partition, new = next(iter(self.moving.items()))
            del self.moving[partition]
            self.replicas[partition] = new
        return self._ongoing()

    def reassign(self, planned: Mapping[TopicPartition, Sequence[int] | None]) -> list[TopicPartition]:
        self.asked.append(dict(planned))
        done = []
        for partition, new in planned.items():
            if new is None:
                if self.moving.pop(partition, None) is not None:
                    done.append(partition)
            elif self.instant:
                self.replicas[partition] = tuple(new)
            else:
                self.moving[partition] = tuple(new)
        self.most_at_once = max(self.most_at_once, len(self.moving))
        return done

    def elect(self, partitions: Any, *, unclean: bool = False) -> Elected:
        self.elected += partitions
        return Elected([], {})

    def sizes(self, nodes: Any, partitions: Any) -> dict[int, dict[TopicPartition, int]]:
        return {node: {p: 100 for p in partitions if node in self.replicas[p]} for node in nodes}

    def alter_topic(self, topic: str, configs: Mapping[str, str | None]) -> None:
        self.configs[topic] = configs

    def alter_broker(self, node: int, configs: Mapping[str, str | None]) -> None:
        self.configs[f"node {node}"] = configs


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "STEP_S", 0.0)
    monkeypatch.setattr(reassign, "LOOK_STEP_S", 0.0)


HOW = reassign.How(dry_run=False, throttle=None, at_once=2, json=True)
TEN = topic("t", *[(1, 2)] * 10)


# -- carrying out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("instant", [False, True])
def test_a_plan_is_carried_out_some_at_a_time(instant: bool) -> None:
    cluster = FakeRequests(TEN, [1, 2, 3], instant=instant)
    planned = dict.fromkeys(TEN, (1, 3))
    seen: list[tuple[int, int]] = []
    runner.carry_out(
        cluster,
        planned,
        at_once=3,
        moved=lambda finished, moving: seen.append((len(finished), len(moving))),
        pause=lambda s: None,
    )
    assert cluster.replicas == planned
    assert cluster.most_at_once <= 3
    assert all(moving <= 3 for _, moving in seen)
    assert [finished for finished, _ in seen] == sorted(finished for finished, _ in seen)
    assert seen[-1] == (10, 0)
    assert sorted(p for asked in cluster.asked for p in asked) == sorted(TEN), "each is asked for once"


def test_an_empty_plan_asks_for_nothing() -> None:
    cluster = FakeRequests(TEN, [1, 2])
    runner.carry_out(cluster, {}, at_once=3, moved=lambda finished, moving: None)
    assert cluster.asked == []


def test_bytes_copied_are_those_of_new_replicas() -> None:
    cluster = FakeRequests(topic("t", (1, 2), (1, 2), (2, 1)), [1, 2, 3])
    zero, one, two = cluster.replicas
    copying = runner.Copying(cluster, cluster.view(), {zero: (1, 3), one: (2, 1), two: (3,)})
    assert copying.total_bytes == 200
    assert copying.done_bytes([], [zero, two]) == 0
    cluster.replicas[two] = (2, 1, 3)
    assert copying.done_bytes([one], [zero, two]) == 100
    assert copying.done_bytes([zero, one, two], []) == 200


# -- the plan of reassign ---------------------------------------------------------------------------------


def test_a_plan_starts_from_what_is_under_way() -> None:
    cluster = FakeRequests(topic("t", (1, 2), (2, 1)), [1, 2, 3])
    cluster.moving[TopicPartition("t", 0)] = (3, 1)
    view = cluster.view()
    assert view.targets() == topic("t", (3, 1), (2, 1))
    assert reassign._planned(view, ["t"], None, None) == {}


@pytest.mark.parametrize("dry_run", [True, False])
def test_who_asks_again_is_told_what_is_under_way(capsys: pytest.CaptureFixture[str], dry_run: bool) -> None:
    cluster = FakeRequests(topic("t", (1, 2), (2, 1)), [1, 2, 3])
    how = reassign.How(dry_run=dry_run, throttle=None, at_once=1, json=False)
    reassign.execute(cluster, cluster.view(), {}, how)
    assert capsys.readouterr().out.startswith("nothing to move: everything is where")
    cluster.moving[TopicPartition("t", 0)] = (3, 1)
    reassign.execute(cluster, cluster.view(), {}, how)
    said = capsys.readouterr().out
    assert said.startswith("nothing more to move") and "1 partition moving" in said
    assert cluster.asked == []


def test_a_node_that_is_away_is_not_given_up_unless_told() -> None:
    view = FakeRequests(topic("t", (1, 2), (2, 3)), [1, 2]).view()
    with pytest.raises(CliError, match="node 3 holds replicas and is not there"):
        reassign._planned(view, ["t"], None, None)
    assert reassign._planned(view, ["t"], [1, 2], None) == {TopicPartition("t", 1): (2, 1)}


def test_other_topics_are_left_alone() -> None:
    view = FakeRequests({**topic("a", (1,)), **topic("b", (1,))}, [1, 2]).view()
    planned = reassign._planned(view, ["a"], [1, 2], None)
    assert planned == {}, "one partition is balanced wherever it is"
    assert {p.topic for p in reassign._planned(view, None, None, None)} < {"a", "b"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((["nope"], None, None), ExitCode.NOT_FOUND, "topic 'nope' does not exist"),
        ((["t"], [1, 9], None), ExitCode.NOT_FOUND, "node 9 is not there; those that are: 1, 2"),
        ((["t"], None, 3), ExitCode.FAILED, "start more nodes, or give a smaller --replication-factor"),
    ],
)
def test_what_cannot_be_planned_is_said(arguments: Any, code: ExitCode, said: str) -> None:
    view = FakeRequests(topic("t", (1, 2)), [1, 2]).view()
    with pytest.raises(CliError, match=said) as caught:
        reassign._planned(view, *arguments)
    assert caught.value.code is code


def test_of_a_file_only_what_is_new_is_asked_for() -> None:
    view = FakeRequests(topic("t", (1, 2), (2, 1)), [1, 2]).view()
    assert reassign._checked(view, topic("t", (1, 2), (1, 2))) == {TopicPartition("t", 1): (1, 2)}
    with pytest.raises(CliError, match="t-2 does not exist"):
        reassign._checked(view, {TopicPartition("t", 2): (1,)})
    with pytest.raises(CliError, match="node 7 is not there"):
        reassign._checked(view, {TopicPartition("t", 0): (7,)})


def test_cancelling_is_for_all_or_for_some_topics(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = FakeRequests({**topic("a", (1,)), **topic("b", (1,))}, [1, 2])
    cluster.moving = dict.fromkeys(cluster.replicas, (2,))
    reassign.cancel_moves(cluster, cluster.view(), ["a"], json=False)
    assert [p.topic for p in cluster.moving] == ["b"]
    assert "node 1" not in cluster.configs, "what moves is still held to its rate"
    reassign.cancel_moves(cluster, cluster.view(), [], json=False)
    assert cluster.moving == {}
    assert cluster.configs["node 1"] == {throttle.LEADER_RATE: None, throttle.FOLLOWER_RATE: None}
    assert capsys.readouterr().out == "a-0: cancelled\nb-0: cancelled\n"


def test_one_that_was_done_meanwhile_is_not_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = FakeRequests(topic("a", (1,), (1,)), [1, 2])
    cluster.moving = dict.fromkeys(cluster.replicas, (2,))
    view = cluster.view()
    cluster.ongoing()
    reassign.cancel_moves(cluster, view, [], json=False)
    assert capsys.readouterr().out == "a-0: does not move any more\na-1: cancelled\n"


# -- what came about --------------------------------------------------------------------------------------


def test_what_came_about_is_told_from_how_the_cluster_stands() -> None:
    before = topic("t", *[(1, 2)] * 7)
    planned = dict.fromkeys(before, (1, 3))
    zero, one, two, three, four, five, six = before
    cluster = FakeRequests({**before, zero: (1, 3), four: (2, 3), six: (2, 1)}, [1, 2, 3])
    cluster.moving = {two: (1, 3), three: (2, 3)}
    del cluster.replicas[five]
    done, missed = compare(before, planned, cluster.view())
    assert done == [zero]
    assert missed == {
        one: "was cancelled, and is at 1,2 as before",
        two: "is still moving",
        three: "is moving to 2,3",
        four: "is at 2,3 instead: somebody else has moved it",
        five: "was deleted",
        six: "was cancelled, and is at 2,1 as before",
    }


def test_a_move_that_was_cancelled_is_an_error_and_does_not_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = FakeRequests(topic("t", (1, 2), (1, 2)), [1, 2, 3])
    zero, one = cluster.replicas
    carry_on = cluster.ongoing

    def cancel() -> dict[TopicPartition, Ongoing]:
        cluster.moving.pop(one, None)
        return carry_on()

    cluster.ongoing = cancel  # type: ignore[method-assign]
    planned = dict.fromkeys(cluster.replicas, (1, 3))
    with pytest.raises(CliError, match=r"1 of 2 partitions are not as planned: t-1 was cancelled") as caught:
        reassign.execute(cluster, cluster.view(), planned, HOW)
    assert caught.value.code is ExitCode.FAILED
    told = json.loads(capsys.readouterr().out)
    assert (told["partitions"], told["copied_replicas"], told["copied_bytes"]) == (1, 1, 100)
    assert list(told["not_changed"]) == ["t-1"]
    assert cluster.elected == [zero]


def test_who_is_asked_may_know_of_it_a_moment_later(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = FakeRequests(topic("t", (1, 2)), [1, 2, 3])
    view = cluster.view()
    stale = iter([view, view])
    now = cluster.view
    cluster.view = lambda: next(stale, None) or now()  # type: ignore[method-assign]
    reassign.execute(cluster, view, dict.fromkeys(cluster.replicas, (1, 3)), HOW)
    assert json.loads(capsys.readouterr().out)["partitions"] == 1


def test_waiting_tells_what_came_about(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = FakeRequests(topic("t", (1, 2), (1, 2)), [1, 2, 3])
    one = list(cluster.replicas)[1]
    cluster.moving = dict.fromkeys(cluster.replicas, (1, 3))
    view = cluster.view()
    del cluster.moving[one]
    with pytest.raises(CliError, match="t-1 was cancelled"):
        reassign.wait_for_moves(cluster, view, json=False)
    assert capsys.readouterr().out == "1 partition changed\n"


# -- the throttle -----------------------------------------------------------------------------------------


def test_a_throttle_names_who_sends_and_who_comes() -> None:
    current = {**topic("a", (1, 2), (2, 1)), **topic("b", (1, 2))}
    planned = {**topic("a", (1, 3), (1, 2)), **topic("b", (2, 1))}
    assert throttle.throttled_replicas(current, planned) == {
        "a": {throttle.LEADER_REPLICAS: "0:1,0:2", throttle.FOLLOWER_REPLICAS: "0:3"}
    }


def test_a_throttle_is_removed_when_all_is_done() -> None:
    cluster = FakeRequests(TEN, [1, 2, 3])
    during: dict[str, Any] = {}
    ask = cluster.reassign

    def asked(planned: Mapping[TopicPartition, Sequence[int] | None]) -> list[TopicPartition]:
        during.update(cluster.configs)
        return ask(planned)

    cluster.reassign = asked  # type: ignore[method-assign]
    how = reassign.How(dry_run=False, throttle=5000, at_once=50, json=True)
    reassign.move(cluster, cluster.view(), dict.fromkeys(TEN, (1, 3)), how)
    assert during["node 3"] == {throttle.LEADER_RATE: "5000", throttle.FOLLOWER_RATE: "5000"}
    assert during.keys() == cluster.configs.keys() == {"t", "node 1", "node 2", "node 3"}
    assert all(value is None for configs in cluster.configs.values() for value in configs.values())


# -- drain ------------------------------------------------------------------------------------------------


def test_a_node_is_drained_until_it_holds_nothing() -> None:
    cluster = FakeRequests(topic("t", (3, 1), (1, 2), (2, 3)), [1, 2, 3])
    done = drain._empty(cluster, cluster.view(), 3, HOW, fewer=False)
    assert done == {"partitions": 2, "copied_replicas": 2}
    assert cluster.view().held_by(3) == []
    assert cluster.replicas[TopicPartition("t", 1)] == (1, 2)
    assert sorted(cluster.elected) == [TopicPartition("t", 0), TopicPartition("t", 2)]


def test_topics_that_are_made_meanwhile_are_drained_too() -> None:
    cluster = FakeRequests(topic("t", (3, 1)), [1, 2, 3])
    elect = cluster.elect

    def elect_and_create(partitions: Any, *, unclean: bool = False) -> Elected:
        cluster.replicas.setdefault(TopicPartition("new", 0), (3,))
        return elect(partitions)

    cluster.elect = elect_and_create  # type: ignore[method-assign]
    drain._empty(cluster, cluster.view(), 3, HOW, fewer=False)
    assert cluster.view().held_by(3) == []
    assert len(cluster.replicas[TopicPartition("new", 0)]) == 1


def test_what_leaves_the_node_already_is_waited_for() -> None:
    cluster = FakeRequests(topic("t", (3, 1)), [1, 2, 3])
    cluster.moving[TopicPartition("t", 0)] = (2, 1)
    drain._empty(cluster, cluster.view(), 3, HOW, fewer=False)
    assert cluster.asked == []
    assert cluster.replicas == topic("t", (2, 1))


def test_what_other_absent_nodes_hold_stays_with_them() -> None:
    view = FakeRequests(topic("t", (1, 9), (3, 9)), [1, 2, 3]).view()
    assert drain._planned(view, 3, fewer=False) == {TopicPartition("t", 1): (9, 2)}
    view = FakeRequests(topic("t", (3, 9, 1)), [1, 2, 3]).view()
    assert drain._planned(view, 3, fewer=False) == {TopicPartition("t", 0): (1, 9, 2)}


def test_a_dead_node_is_drained() -> None:
    view = FakeRequests(topic("t", (3, 1)), [1, 2]).view()
    assert drain._planned(view, 3, fewer=False) == {TopicPartition("t", 0): (1, 2)}


def test_too_few_nodes_to_drain_to_are_an_error_unless_fewer_replicas_will_do() -> None:
    view = FakeRequests({**topic("t", (3, 1, 2)), **topic("u", (3, 1))}, [1, 2, 3]).view()
    with pytest.raises(CliError, match=r"t-0 is to have 3 .* there are 2 .* --allow-fewer-replicas"):
        drain._planned(view, 3, fewer=False)
    planned = drain._planned(view, 3, fewer=True)
    assert sorted(planned[TopicPartition("t", 0)]) == sorted(planned[TopicPartition("u", 0)]) == [1, 2]


def test_the_last_node_is_not_drained() -> None:
    view = FakeRequests(topic("t", (1,)), [1]).view()
    with pytest.raises(CliError, match="there is no node but 1"):
        drain._planned(view, 1, fewer=True)


# -- describe ---------------------------------------------------------------------------------------------


def test_the_state_of_nodes_and_partitions_is_counted() -> None:
    view = View(
        brokers={1: Broker("a", 1, "r"), 2: Broker("b", 2, None)},
        partitions={
            TopicPartition("t", 0): PartitionView(1, (1, 2, 3), (1, 2)),
            TopicPartition("t", 1): PartitionView(-1, (3, 4), ()),
            TopicPartition("u", 0): PartitionView(2, (2, 1), (2,)),
            TopicPartition("v", 0): PartitionView(1, (1, 2), (1, 2)),
        },
    )
    found = health.nodes(view, {3: Broker("c", 3, "s"), 5: Broker("", -1, None)})
    assert [(n["node_id"], n["state"], n["leads"], n["replicas"], n["behind"]) for n in found] == [
        (1, "alive", 2, 3, 1),
        (2, "alive", 1, 3, 0),
        (3, "fenced", 0, 2, 2),
        (4, "fenced", 0, 1, 1),
        (5, "fenced", 0, 0, 0),
    ]
    assert [(n["host"], n["port"], n["rack"]) for n in found[2:]] == [
        ("c", 3, "s"),
        (None, None, None),
        (None, None, None),
    ]
    asked: list[Sequence[str]] = []

    def min_isr(topics: Sequence[str]) -> dict[str, str | None]:
        asked.append(topics)
        return {"t": "3", "u": None}

    assert health.unwell(view, min_isr) == {
        "offline_partitions": ["t-1"],
        "under_replicated_partitions": ["t-0", "t-1", "u-0"],
        "under_min_isr_partitions": ["t-0", "t-1"],
    }
    assert asked == [["t", "u"]], "only topics that are short are asked for, together"


# -- small things -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2 * 10**15, "2000.0 TB")],
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert report.size(count) == text


def test_partitions_by_topic() -> None:
    partitions = [TopicPartition("b", 2), TopicPartition("a", 1), TopicPartition("b", 0)]
    assert by_topic(partitions) == {"a": [1], "b": [0, 2]}


def test_a_long_plan_is_cut_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = FakeRequests(topic("t", *[(1,)] * 100), [1, 2])
    report.show_plan(cluster.view(), dict.fromkeys(cluster.replicas, (2,)), 5000)
    out = capsys.readouterr().out
    assert "and 60 more" in out
    assert out.splitlines()[-1] == "100 partitions to change; 100 replicas to copy, 5.0 kB"
