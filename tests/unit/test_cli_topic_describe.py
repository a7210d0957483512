"""`ottla topic describe` for somebody who lacks a right: it shows what the others allow."""

from __future__ import annotations

import pytest
from inside_support import Inside

from ottla.testing import Acl, Broker


def test_configurations_that_may_not_be_seen_are_named_and_all_else_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = [Acl("ann", "describe", topic="t"), Acl("bob", "describe-configs", topic="t")]
    rules.append(Acl("bob", "describe", topic="t"))
    with Broker(topics={"t": 2}, users={"ann": "secret", "bob": "secret"}, acls=rules) as broker:
        broker.produce("t", "m")
        (seen,) = Inside(broker, capsys, "bob").json("topic", "describe", "t")
        assert seen["configs"] == {}
        ann = Inside(broker, capsys, "ann")
        (found,) = ann.json("topic", "describe", "t")
        assert found == seen | {"configs": None}
        assert sum(one["end_offset"] for one in found["partitions"]) == 1
        assert "lacks the right to describe-configs on topic 't'" in ann.notes
        assert "PARTITION" in ann.out("topic", "describe", "t")
        assert ann.notes.startswith("ottla: the configurations are not shown: ")
