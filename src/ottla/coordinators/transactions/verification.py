"""Whether a transaction is open, asked of its coordinator before a partition takes its first batch.

Kafka's AddPartitionsToTxnManager. So no transaction can begin in a partition that its coordinator knows
nothing of, and that nobody would ever end (KIP-890). In the new protocol the question adds the partition as
well. One request at a time goes to each node, with all that is to be asked by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from ottla.coordinators.transactions.coordinator import TransactionCoordinator
from ottla.coordinators.transactions.markers import HasImage
from ottla.coordinators.transactions.metadata import TV_0, TV_2
from ottla.coordinators.transactions.requests import AddRequest
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import TRANSACTION_STATE_TOPIC
from ottla.replication.nodes import Nodes
from ottla.types import TopicPartition
from ottla.wire.apis import ADD_PARTITIONS_TO_TXN

log = logging.getLogger(__name__)

VERSION = 5
# Partitions that are asked for in one request: with their topics they are to be within what one may have.
PARTITIONS_PER_REQUEST = 4_000
# Producers that are told in one turn of the loop: their batches are appended then.
TOLD_AT_ONCE = 50

# As leaders tell it, what ends the transaction: what its producer sends next is another one's, or nothing.
# After any other refusal the same batch may come again, before those behind it.
FINAL = frozenset(
    {
        ErrorCode.invalid_txn_state,
        ErrorCode.transaction_abortable,
        ErrorCode.invalid_producer_epoch,
        ErrorCode.invalid_producer_id_mapping,
    }
)

# The partitions that may not be written to.
Errors = Mapping[TopicPartition, ErrorCode]
Told = Callable[[Errors], None]


class Operation(Enum):
    """What the client's request can be told, by its version (TransactionSupportedOperation)."""

    # Produce up to 10, TxnOffsetCommit up to 3.
    DEFAULT_ERROR = "default error"
    # It knows TRANSACTION_ABORTABLE: Produce 11, TxnOffsetCommit 4.
    GENERIC_ERROR = "generic error supported"
    # What it writes to is added to its transaction: Produce 12, TxnOffsetCommit 5.
    ADD_PARTITION = "add partition"


def of_produce(version: int) -> Operation:
    if version > 11:
        return Operation.ADD_PARTITION
    return Operation.GENERIC_ERROR if version > 10 else Operation.DEFAULT_ERROR


def of_offset_commit(version: int) -> Operation:
    if version > 4:
        return Operation.ADD_PARTITION
    return Operation.GENERIC_ERROR if version > 3 else Operation.DEFAULT_ERROR


class _Question(NamedTuple):
    request: AddRequest
    operation: Operation
    told: Told

    def tell(self, errors: Errors) -> None:
        """As a leader tells its client of it."""
        told = {}
        for where, code in errors.items():
            if code == ErrorCode.none:
                continue
            if code == ErrorCode.producer_fenced:
                # What producers expect of partitions' leaders.
                code = ErrorCode.invalid_producer_epoch
            elif code == ErrorCode.transaction_abortable and self.operation is Operation.DEFAULT_ERROR:
                code = ErrorCode.invalid_txn_state
            told[where] = code
        self.told(told)

    def tell_all(self, code: ErrorCode) -> None:
        if code == ErrorCode.none:
            self.told({})
            return
        self.tell(dict.fromkeys(self.request.partitions, code))


class Verification:
    """See the module's docstring."""

    def __init__(
        self,
        node_id: int,
        images: HasImage,
        coordinator: TransactionCoordinator,
        nodes: Nodes | None,
    ) -> None:
        """``nodes``: None where there are no others."""
        self._node_id = node_id
        self._images = images
        self._coordinator = coordinator
        self._nodes = nodes
        # What each node is to be asked, by transactional id, and the nodes that have not answered yet.
        self._queues: dict[int, dict[str, _Question]] = {}
        self._asked: set[int] = set()
        # What was answered, and not told yet.
        self._outcomes: deque[tuple[_Question, Errors]] = deque()
        self._closed = False

    def ask(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: frozenset[TopicPartition],
        operation: Operation,
        told: Told,
    ) -> None:
        """Whether a producer may write to partitions; ``told`` now, or later, of those that it may not.

        COORDINATOR_NOT_AVAILABLE and NETWORK_EXCEPTION where its coordinator cannot be asked.
        """
        version = TV_2 if operation is Operation.ADD_PARTITION else TV_0
        image = self._images.image
        topic = image.topics.get(TRANSACTION_STATE_TOPIC)
        leader = -1
        if topic is not None:
            leader = topic.partitions[self._coordinator.partition_for(transactional_id)].leader
        is_here = leader == self._node_id
        # Other nodes are asked for several transactions at once: there none waits.
        request = AddRequest(
            transactional_id, producer_id, producer_epoch, partitions, version, may_wait=is_here
        )
        question = _Question(request, operation, told)
        if is_here:
            self._ask_here(question)
        elif leader not in image.brokers or self._nodes is None:
            question.tell_all(ErrorCode.coordinator_not_available)
        else:
            self._queue(leader, question)

    def close(self) -> None:
        """Ask nobody any more, and tell nobody."""
        self._closed = True
        self._queues.clear()
        self._outcomes.clear()

    def _ask_here(self, question: _Question) -> None:
        if question.operation is not Operation.ADD_PARTITION:
            question.tell(self._coordinator.verify(question.request))
            return

        def added(done: Deferred[ErrorCode]) -> None:
            error = done.error
            if error is None:
                code = done.result()
            else:
                code = error.code if isinstance(error, KafkaError) else ErrorCode.unknown_server_error
            question.tell_all(code)

        self._coordinator.add(question.request).listen(added)

    # -- other nodes

    def _queue(self, node_id: int, question: _Question) -> None:
        """One question of each id at a time. A later one of the same producer is the client's retry: whoever
        waits for the first is told to try again; one of an earlier epoch is fenced."""
        queue = self._queues.setdefault(node_id, {})
        earlier = queue.get(question.request.transactional_id)
        if earlier is not None:
            if earlier.request.producer_epoch > question.request.producer_epoch:
                question.tell_all(ErrorCode.invalid_producer_epoch)
                return
            is_same = earlier.request.producer_epoch == question.request.producer_epoch
            del queue[question.request.transactional_id]
            earlier.tell_all(ErrorCode.network_exception if is_same else ErrorCode.invalid_producer_epoch)
        queue[question.request.transactional_id] = question
        self._send(node_id)

    def _send(self, node_id: int) -> None:
        """Ask a node what is to be asked, unless it has something to answer."""
        queue = self._queues.get(node_id)
        if not queue or node_id in self._asked or self._closed:
            return
        assert self._nodes is not None
        questions: list[_Question] = []
        left = PARTITIONS_PER_REQUEST
        for question in list(queue.values()):
            if questions and len(question.request.partitions) > left:
                break
            questions.append(question)
            left -= len(question.request.partitions)
            del queue[question.request.transactional_id]
        self._asked.add(node_id)
        fields = {"transactions": [_fields(question) for question in questions]}
        self._nodes.ask(
            node_id,
            ADD_PARTITIONS_TO_TXN,
            VERSION,
            fields,
            lambda response: self._answered(node_id, questions, response),
        )

    def _answered(self, node_id: int, questions: list[_Question], response: Any) -> None:
        self._asked.discard(node_id)
        if self._closed:
            return
        results: dict[str, dict[TopicPartition, ErrorCode]] = {}
        code = ErrorCode.network_exception
        if response is not None:
            code = _error(response.error_code)
            if code == ErrorCode.cluster_authorization_failed:
                # That is between nodes: to clients it was not verified.
                code = ErrorCode.invalid_txn_state
            elif code == ErrorCode.none:
                code = ErrorCode.unknown_server_error
                results = {one.transactional_id: _errors(one) for one in response.results_by_transaction}
        for question in questions:
            errors = results.get(question.request.transactional_id)
            if errors is None:
                errors = dict.fromkeys(question.request.partitions, code)
            self._outcomes.append((question, errors))
        self._send(node_id)
        if len(self._outcomes) == len(questions):
            self._tell()

    def _tell(self) -> None:
        """Tell some of those who have an outcome: each appends its batches then."""
        for _ in range(min(len(self._outcomes), TOLD_AT_ONCE)):
            question, errors = self._outcomes.popleft()
            try:
                question.tell(errors)
            except Exception:
                # It belongs to one client; the others must hear of theirs.
                log.exception("transactional id %s: its batches were left", question.request.transactional_id)
        if self._outcomes:
            asyncio.get_running_loop().call_soon(self._tell)


def _fields(question: _Question) -> dict[str, Any]:
    request = question.request
    topics: dict[str, list[int]] = {}
    for topic, partition in request.partitions:
        topics.setdefault(topic, []).append(partition)
    return {
        "transactional_id": request.transactional_id,
        "producer_id": request.producer_id,
        "producer_epoch": request.producer_epoch,
        "verify_only": question.operation is not Operation.ADD_PARTITION,
        "topics": [{"name": name, "partitions": each} for name, each in topics.items()],
    }


def _errors(result: Any) -> dict[TopicPartition, ErrorCode]:
    return {
        TopicPartition(topic.name, one.partition_index): _error(one.partition_error_code)
        for topic in result.topic_results
        for one in topic.results_by_partition
    }


def _error(code: int) -> ErrorCode:
    try:
        return ErrorCode(code)
    except ValueError:
        return ErrorCode.unknown_server_error
