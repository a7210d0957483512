"""Requests that are well formed and make little sense, to both brokers at once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from interop.fuzz import Awkward
from ottla.wire.apis import APIS
from protocol.known import is_failure, is_meant
from protocol.normal import differences
from protocol.peer import SILENT, Fields, Peer

# Answers that are late are none: a JoinGroup may wait for as long as it asks.
PATIENCE_S = 2.0
# What ends a broker's registration, what tells of every API that one broker has and the other has not, and
# what Ottla answers only to say that it does not serve it.
_NOT_ASKED = ("UnregisterBroker", "ApiVersions", "ConsumerGroupHeartbeat")
# Kafka answers REQUEST_TIMED_OUT to what its controller did not do within so long; we are done before.
_TIMEOUT_MS = 5000


def ask_at_random(one: str, other: str, seed: int, count: int) -> list[str]:
    """The differences, which are printed as they are found, each with the request that showed it."""
    peers = [Peer(address, "", PATIENCE_S) for address in (one, other)]
    for peer in peers:
        peer.send("DeleteTopics", 5, {"topic_names": ["t", "u"], "timeout_ms": _TIMEOUT_MS})
    makers = [Awkward(seed, [peer.create("t"), peer.create("u", 3)]) for peer in peers]
    chance = random.Random(seed)
    lines: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(count):
            api = chance.choice([api for api in APIS.values() if api.name not in _NOT_ASKED])
            # Before version 4 Metadata makes topics, in Kafka some time after the answer.
            version = chance.randint(4 if api.name == "Metadata" else api.version_min, api.version_max)
            requests = [patient(maker.request(api.key, version)) for maker in makers]
            asked = [
                pool.submit(peer.send, api.name, version, request)
                for peer, request in zip(peers, requests, strict=True)
            ]
            answers = [
                tidied(peer.normaliser.answer(answer.result()))
                for peer, answer in zip(peers, asked, strict=True)
            ]
            if is_failure(answers[0]) or answers[0] == SILENT:
                continue
            found = [
                difference
                for difference in differences(*answers)
                if not is_meant(f"{api.name}:", *difference)
            ]
            if found:
                told = "; ".join(f"{path}: {this!r} / {that!r}" for path, this, that in found[:4])
                lines.append(f"{api.name} v{version}: {told:.400}\n    {requests[0]!r:.600}")
                print(lines[-1].replace("\0", "\\0"), flush=True)
    for peer in peers:
        peer.close()
    return lines


def patient(fields: Fields) -> Fields:
    """A request that leaves the broker time, and asks neither for transactions nor for topics by the way."""
    usual = {
        "timeout_ms": _TIMEOUT_MS,
        "transactional_id": None,
        "key_type": 0,
        "allow_auto_topic_creation": False,
    }
    return fields | {name: value for name, value in usual.items() if name in fields}


def tidied(answer: Any) -> Any:
    """An answer in which each topic comes once, and none without partitions: who names a topic twice, or
    none of its partitions, gets one shape from one broker and another from the other."""
    if isinstance(answer, dict):
        return {key: tidied(value) for key, value in answer.items()}
    if not isinstance(answer, list):
        return answer
    merged: dict[str, Any] = {}
    for value in map(tidied, answer):
        lists = (
            [key for key, held in value.items() if isinstance(held, list)] if isinstance(value, dict) else []
        )
        if len(lists) != 1 or "error_code" in value:
            merged[str(len(merged))] = value
            continue
        (inner,) = lists
        name = str({key: held for key, held in value.items() if key != inner})
        if value[inner]:
            merged.setdefault(name, value | {inner: []})[inner] += value[inner]
    return list(merged.values())
