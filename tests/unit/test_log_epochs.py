"""Leader epochs against a plain list, with the cases that Kafka's LeaderEpochFileCache spells out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ottla.log.epochs import LeaderEpochs

assignments = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50)), max_size=15)


def model(steps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    entries: list[tuple[int, int]] = []
    for epoch, start in steps:
        if entries and entries[-1][0] == epoch and entries[-1][1] <= start:
            continue
        entries = [entry for entry in entries if entry[0] < epoch and entry[1] < start]
        entries.append((epoch, start))
    return entries


@given(assignments)
def test_assigning_keeps_both_growing(steps: list[tuple[int, int]]) -> None:
    epochs = LeaderEpochs(steps)
    assert epochs.entries == model(steps)
    assert epochs.latest == (epochs.entries[-1][0] if epochs.entries else -1)


@given(assignments, st.integers(-3, 22))
def test_where_an_epoch_ends(steps: list[tuple[int, int]], epoch: int) -> None:
    entries = model(steps)
    found, end = LeaderEpochs(steps).end_offset_for(epoch, 99)
    if epoch == -1 or not entries or epoch > entries[-1][0]:
        assert (found, end) == (-1, -1)
    elif epoch == entries[-1][0]:
        assert (found, end) == (epoch, 99)
    else:
        known = [entry for entry in entries if entry[0] <= epoch]
        later = [entry for entry in entries if entry[0] > epoch]
        assert (found, end) == (known[-1][0] if known else epoch, later[0][1])


@given(assignments, st.integers(0, 60))
def test_truncating_at_both_ends(steps: list[tuple[int, int]], offset: int) -> None:
    entries = model(steps)
    from_end = LeaderEpochs(steps)
    from_end.truncate_from_end(offset)
    assert from_end.entries == [entry for entry in entries if entry[1] < offset]
    assert from_end.changed == (from_end.entries != entries)
    from_start = LeaderEpochs(steps)
    from_start.truncate_from_start(offset)
    before = [entry for entry in entries if entry[1] <= offset]
    after = [entry for entry in entries if entry[1] > offset]
    assert from_start.entries == ([(before[-1][0], offset)] if before else []) + after
    assert from_start.changed == (from_start.entries != entries)


@given(assignments, st.integers(0, 60))
def test_which_epoch_wrote_an_offset(steps: list[tuple[int, int]], offset: int) -> None:
    before = [entry for entry in model(steps) if entry[1] <= offset]
    assert LeaderEpochs(steps).epoch_at(offset) == (before[-1][0] if before else -1)


def test_epochs_that_are_none_are_not_entered() -> None:
    assert LeaderEpochs([(-1, 5)]).entries == []
