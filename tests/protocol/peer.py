"""One broker that is asked, and what it answered: a transcript of normalised answers by question."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from interop.raw import RawClient
from ottla.wire.apis import BY_NAME
from protocol.normal import Normaliser

Fields = dict[str, Any]
Transcript = dict[str, dict[int, Any]]

NO_ID = UUID(int=0)
TIMEOUT_S = 20.0
CLOSED, SILENT = "closed", "no answer"


class Peer:
    """A connection to a broker that is asked question by question. `name` gives names that are this run's.

    `login`: a user and a password, where it asks for them.
    """

    def __init__(
        self, address: str, prefix: str, timeout_s: float = TIMEOUT_S, login: tuple[str, str] | None = None
    ) -> None:
        self.address = address
        self.login = login
        self.prefix = prefix
        self.timeout_s = timeout_s
        self.transcript: Transcript = {}
        self.normaliser = Normaliser(prefix)
        self._client: RawClient | None = None

    def name(self, name: str) -> str:
        return self.prefix + name

    def close(self) -> None:
        if self._client is not None:
            self._client.socket.close()
            self._client = None

    def send(self, api: str, version: int, fields: Fields) -> Any:
        """The answer, undisturbed; CLOSED or SILENT where there is none."""
        try:
            if self._client is None:
                self._client = self._connected()
            return self._client.call(api, version, **fields)
        except TimeoutError:
            answer = SILENT
        except ConnectionError:
            answer = CLOSED
        self.close()
        return answer

    def _connected(self) -> RawClient:
        client = RawClient(self.address, self.timeout_s)
        if self.login is not None:
            client.call("SaslHandshake", 1, mechanism="PLAIN")
            answer = client.call("SaslAuthenticate", 2, auth_bytes="\0{}\0{}".format(*self.login).encode())
            assert answer.error_code == 0, answer
        return client

    def ask(self, question: str, api: str, version: int | None = None, **fields: Any) -> Any:
        """Ask, and note the answer; gives it as it came."""
        version = BY_NAME[api].version_max if version is None else version
        answer = self.send(api, version, fields)
        answers = self.transcript.setdefault(f"{api}: {question}", {})
        assert version not in answers, f"asked twice: {question} (v{version})"
        answers[version] = self.normaliser.answer(answer)
        return answer

    def each(
        self,
        question: str,
        api: str,
        fields: Fields | Callable[[int], Fields],
        versions: Iterable[int] | None = None,
    ) -> None:
        """Ask at each version that we serve."""
        served = BY_NAME[api]
        for version in versions or range(served.version_min, served.version_max + 1):
            self.ask(question, api, version, **(fields(version) if callable(fields) else fields))

    # ------------------------------------------------------------ what most sequences begin with

    def create(self, name: str, partitions: int = 1, **configs: str) -> UUID:
        """Create a topic of this run (no part of the transcript); its id."""
        topic = {
            "name": self.name(name),
            "num_partitions": partitions,
            "replication_factor": 1,
            "assignments": [],
            "configs": [{"name": k.replace("_", "."), "value": v} for k, v in configs.items()],
        }
        answer = self.send(
            "CreateTopics", 7, {"topics": [topic], "timeout_ms": 10_000, "validate_only": False}
        )
        (made,) = answer.topics
        assert made.error_code == 0, made
        self.normaliser.answer(answer)
        found: UUID = made.topic_id
        self.await_leaders(self.name(name), partitions)
        return found

    def await_leaders(self, topic: str, partitions: int) -> None:
        """Kafka answers before all of its parts know of a new topic."""
        asked = [
            {"partition_index": index, "current_leader_epoch": -1, "timestamp": -1}
            for index in range(partitions)
        ]
        fields = {"replica_id": -1, "isolation_level": 0, "topics": [{"name": topic, "partitions": asked}]}
        deadline = time.monotonic() + self.timeout_s
        while True:
            answer = self.send("ListOffsets", 5, fields)
            if not any(partition.error_code for partition in answer.topics[0].partitions):
                return
            assert time.monotonic() < deadline, f"{topic} has no leaders"
            time.sleep(0.02)

    def produce(self, name: str, data: bytes, partition: int = 0) -> None:
        """Write a batch (no part of the transcript)."""
        entry = {"index": partition, "records": data}
        answer = self.send(
            "Produce",
            9,
            {
                "transactional_id": None,
                "acks": -1,
                "timeout_ms": 10_000,
                "topic_data": [{"name": self.name(name), "partition_data": [entry]}],
            },
        )
        assert answer.responses[0].partition_responses[0].error_code == 0, answer
