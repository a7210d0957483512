"""The records that a check is about: where they are found, and which steps are told of them."""

from __future__ import annotations

from dataclasses import replace

from picture_support import LOST, committed, read, shop, written

from ottla.explore.programs.checks import Broken
from ottla.explore.programs.story import story_of
from ottla.explore.recording.picture_marked import STEPS_MAX, Marked, Place, marked_of
from ottla.explore.recording.recording import TEXT_MAX, Kind, Span
from ottla.explore.world.machine import EPOCH_MS
from ottla.testing.contents import StoredRecord

NOTHING_MORE = "ends, and no program that read it has written a record with this value"


def told(marked: Marked, number: int = 0) -> list[tuple[float, str, str]]:
    return [(step.at_s, step.lane, step.text) for step in marked.told[number].steps]


def test_a_lost_record_is_told_of_from_its_write_to_what_is_read_instead() -> None:
    marked = marked_of(shop(), [LOST])
    assert marked.places == {Place("orders", 0, 3)}
    assert told(marked) == [
        (1.3, "shop", "sends it to orders-0: offset 3, acknowledged after 10 ms"),
        (1.35, "shipping", "reads it: orders-0 offset 3"),
        (1.4, "shipping", "commits orders-0 to 4 for group billing: it counts as read"),
        (1.45, "shipping", "loses power"),
        (4.0, "shipping", "starts again"),
        (4.5, "shipping", "reads on: orders-0 offset 4"),
        (80.0, "the run", NOTHING_MORE),
    ]
    assert marked.told[0].name == "order 3"
    assert marked.told[0].alike == "No other record has this value."


def test_a_record_that_was_written_twice_is_one_story() -> None:
    recording = shop()
    again = replace(written(0, 5.0, b"order 3"), topic="shipped", program="shipping")
    recording.written += [again, replace(again, offset=1, sent_s=6.0, acknowledged_s=None)]
    records = [StoredRecord(0, at, EPOCH_MS + (5 + at) * 1_000, None, b"order 3", ()) for at in (0, 1)]
    marked = marked_of(recording, records)
    assert marked.places == {Place("orders", 0, 3), Place("shipped", 0, 0), Place("shipped", 0, 1)}
    assert len(marked.told) == 1
    assert [text for at_s, _, text in told(marked) if at_s in (1.3, 5.0, 6.0)] == [
        "sends it to orders-0: offset 3, acknowledged after 10 ms",
        "sends it to shipped-0: offset 0, acknowledged after 10 ms",
        "sends it to shipped-0: offset 1, of which it never hears",
    ]
    assert marked.told[0].alike == "3 records have this value."


def test_the_end_is_told_as_the_story_does() -> None:
    for key, results, end in (
        (None, [], f"the run {NOTHING_MORE}"),
        (b"k", [], "the run ends, and no program that read it has written a record with this key or value"),
        (None, [b"order 3"], ""),
        (b"k", [b"bill 3"], ""),
    ):
        recording = shop()
        recording.written[3] = replace(recording.written[3], key=key)
        for value in results:
            result = replace(written(0, 1.44, value), topic="shipped", program="shipping", key=key)
            recording.written.append(result)
        lost = LOST._replace(key=key)
        last = [line.split(maxsplit=1)[1] for line in story_of(recording, Broken("lost", [lost]))][-1]
        _, lane, text = told(marked_of(recording, [lost]))[-1]
        assert last.startswith("the run ends") == bool(end)
        assert (f"{lane} {text}" if lane == "the run" else "") == end == (last if end else "")


def test_what_nobody_reads_is_said_at_the_end() -> None:
    recording = shop()
    recording.read = [one for one in recording.read if one.first_offset != 3]
    recording.committed = []
    assert told(marked_of(recording, [LOST]))[-1] == (
        80.0, "the run", "ends, and no program has read orders-0 offset 3"
    )  # fmt: skip
    recording.read = []
    assert [lane for _, lane, _ in told(marked_of(recording, [LOST]))] == ["shop"]


def test_what_fails_again_and_again_is_one_step() -> None:
    recording = shop()
    failing = replace(
        written(3, 1.1, b"order 3"), offset=None, acknowledged_s=None, result="NOT_ENOUGH_REPLICAS"
    )
    recording.written[3:3] = [replace(failing, sent_s=1.1 + number / 100) for number in range(20)]
    assert told(marked_of(recording, [LOST]))[0] == (
        1.1,
        "shop",
        "sends it to orders-0: NOT_ENOUGH_REPLICAS, 20 times until 1.290",
    )


def test_a_refused_commit_is_a_step_and_counts_for_nothing() -> None:
    recording = shop()
    recording.committed = [replace(committed(4, 1.4), result="ILLEGAL_GENERATION"), committed(5, 4.6)]
    texts = [text for _, _, text in told(marked_of(recording, [LOST])) if "commits" in text]
    assert texts == [
        "commits orders-0 to 4 for group billing: ILLEGAL_GENERATION",
        "commits orders-0 to 5 for group billing: it counts as read",
    ]


def test_kills_between_which_nothing_was_done_are_one_step() -> None:
    recording = shop()
    for begin_s in (4.1, 4.2, 4.3):
        recording.spans.append(
            Span(lane="shipping", kind=Kind.DOWN, begin_s=begin_s, end_s=begin_s + 0.05, text="is killed")
        )
        recording.spans.append(Span(lane="shipping", kind=Kind.RUNS, begin_s=begin_s + 0.05))
    ends = [step for step in told(marked_of(recording, [LOST])) if step[0] not in (1.3, 1.35, 1.4)]
    assert ends == [
        (1.45, "shipping", "loses power, 4 times until 4.300"),
        (4.35, "shipping", "starts again"),
        (4.5, "shipping", "reads on: orders-0 offset 4"),
        (80.0, "the run", NOTHING_MORE),
    ]


def test_the_writers_end_is_no_step_once_it_has_heard() -> None:
    assert not any("has ended" in text for _, _, text in told(marked_of(shop(), [LOST])))
    recording = shop()
    recording.written[3] = replace(recording.written[3], acknowledged_s=None)
    assert (2.0, "shop", "has ended") in told(marked_of(recording, [LOST]))


def test_of_two_topics_the_one_is_meant_in_which_it_was_written_then() -> None:
    recording = shop()
    other = replace(written(3, 50.0, b"order 3"), topic="copies", key=b"k")
    recording.written.append(other)
    assert marked_of(recording, [LOST]).places == {Place("orders", 0, 3)}
    late = StoredRecord(0, 3, EPOCH_MS + 50_000, b"k", b"order 3", ())
    assert marked_of(recording, [late]).places == {Place("copies", 0, 3)}


def test_long_values_are_known_by_what_is_kept_of_them() -> None:
    recording = shop()
    recording.written.append(written(9, 2.0, b"x" * TEXT_MAX))
    found = marked_of(recording, [StoredRecord(0, 9, EPOCH_MS + 2_000, None, b"x" * (TEXT_MAX + 50), ())])
    assert found.places == {Place("orders", 0, 9)}


def test_what_the_recording_does_not_have_is_said() -> None:
    marked = marked_of(shop(), [StoredRecord(0, 77, EPOCH_MS, None, b"order 3", ())])
    assert not marked.places and not marked.told
    assert marked.left_out == ("1 of the records that the check is about: the recording does not have them",)


def test_records_that_all_have_one_value_are_not_one_record() -> None:
    recording = shop()
    recording.written = [written(offset, 1 + offset / 10, b"tick") for offset in range(30)]
    marked = marked_of(recording, [StoredRecord(0, 5, EPOCH_MS + 1_500, None, b"tick", ())])
    assert marked.places == {Place("orders", 0, 5)}


def test_of_a_long_story_the_first_and_the_last_steps_are_told() -> None:
    recording = shop()
    recording.read += [replace(read(3, 3, 10 + at), program=f"p{at}") for at in range(40)]
    steps = told(marked_of(recording, [LOST]))
    assert len(steps) == STEPS_MAX
    assert steps[0][0] == 1.3 and steps[-2:] == [
        (49, "p39", "reads it: orders-0 offset 3"),
        (80.0, "the run", NOTHING_MORE),
    ]


def test_the_story_says_the_same_of_reads_and_commits() -> None:
    recording = shop()
    recording.committed.insert(0, replace(committed(4, 1.38), result="NOT_COORDINATOR"))
    story = [line.split(maxsplit=1)[1] for line in story_of(recording, Broken("lost", [LOST]))]
    steps = [f"{lane} {text}" for _, lane, text in told(marked_of(recording, [LOST]))]
    assert {line.replace(" (1st start)", "") for line in story} >= set(steps[1:4])
    assert story[-1] == steps[-1] == f"the run {NOTHING_MORE}"
    # The picture has room for how long it took.
    assert steps[0] == "shop sends it to orders-0: offset 3, acknowledged after 10 ms"
    assert story[0] == "shop sends 'order 3' to orders-0: offset 3"
