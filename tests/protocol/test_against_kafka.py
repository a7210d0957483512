"""What Apache Kafka 4.4 answered to the same requests (`kafka/`) is what Ottla answers.

`python -m protocol` says how it was recorded, and compares with a Kafka that runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from interop.process import BrokerProcess
from protocol import recorded, sequence_security
from protocol.differing import between
from protocol.known import KNOWN
from protocol.normal import differences

# As the Kafka that was asked: its id is in many answers.
SETTINGS = {"node.id": "1"}


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    started = ottla_process_module(SETTINGS)
    recorded.warm_up(started.bootstrap, "warm-")
    return started


@pytest.fixture(scope="module")
def secured_broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process_module(SETTINGS | sequence_security.SETTINGS)


@pytest.fixture(scope="module")
def kafka() -> recorded.Answers:
    return recorded.read()


def test_every_sequence_is_recorded(kafka: recorded.Answers) -> None:
    assert list(kafka) == [*recorded.SEQUENCES, *recorded.SECURED]


@pytest.mark.parametrize("name", recorded.SEQUENCES)
def test_the_answers_are_kafkas(broker: BrokerProcess, kafka: recorded.Answers, name: str) -> None:
    ours = recorded.play_one(broker.bootstrap, recorded.PREFIX, name)
    assert between(kafka[name], ours) == []
    assert "Traceback" not in broker.log()


@pytest.mark.parametrize("name", recorded.SECURED)
def test_the_answers_about_security_are_kafkas(
    secured_broker: BrokerProcess, kafka: recorded.Answers, name: str
) -> None:
    test_the_answers_are_kafkas(secured_broker, kafka, name)


def test_what_is_meant_to_differ_is_asked(kafka: recorded.Answers) -> None:
    """A difference that is excused by no question is an excuse for the future."""
    questions = [question for transcript in kafka.values() for question in transcript]
    unused = [known for known in KNOWN if not any(re.search(known.question, q) for q in questions)]
    assert unused == []


def test_a_difference_is_found_wherever_it_is() -> None:
    one = {"error_code": 0, "topics": [{"name": "a", "partitions": [1, 2]}, {"name": "b", "partitions": []}]}
    other = {"error_code": 3, "topics": [{"name": "b", "partitions": []}, {"name": "a", "partitions": [1]}]}
    assert list(differences(one, other)) == [
        (".error_code", 0, 3),
        (".topics[a].partitions[#2]", 2, "(nothing)"),
    ]
    assert list(differences(one, one)) == []
    assert between({"q": {1: one}}, {"q": {1: other, 2: one}}) == [
        "q v1: .error_code: 0 / 3",
        "q v1: .topics[a].partitions[#2]: 2 / '(nothing)'",
        f"q v2: : 'not asked' / {one!r}",
    ]
