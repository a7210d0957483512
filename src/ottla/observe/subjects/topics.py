"""What goes into topics and out of them, and how large they are."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.observe.exposition import Page, braced
from ottla.observe.labels import OTHERS
from ottla.observe.metric import Metric, counter, gauge
from ottla.observe.parts import Parts
from ottla.replication.traffic import Traffic

_TOPICS = "kafka.server:type=BrokerTopicMetrics,name="
_LOG = "kafka.log:type=Log,name="

_LOAD = "As much as there is load.", ""


def _both(name: str, meaning: str, kafka: str) -> tuple[Metric, Metric]:
    """The same of all topics together, and of each."""
    return (
        counter(
            f"ottla_{name}_total",
            f"{meaning} Of all topics, those that are gone among them.",
            *_LOAD,
            (),
            kafka,
        ),
        counter(
            f"ottla_topic_{name}_total",
            f"{meaning} Of partitions of this node.",
            *_LOAD,
            ("topic",),
            f"{kafka},topic=…",
        ),
    )


MESSAGES = _both(
    "messages_in", "Records that were appended by this node as leader.", _TOPICS + "MessagesInPerSec"
)
BATCHES = _both("batches_in", "Batches that were.", "")
BYTES_IN = _both("bytes_in", "Bytes of these batches, as they are stored.", _TOPICS + "BytesInPerSec")
BYTES_OUT = _both("bytes_out", "Bytes of batches that consumers were sent.", _TOPICS + "BytesOutPerSec")
FOLLOWED = _both(
    "replication_bytes_in",
    "Bytes that this node has fetched as a follower.",
    _TOPICS + "ReplicationBytesInPerSec",
)
FOLLOWING = _both(
    "replication_bytes_out", "Bytes that followers were sent.", _TOPICS + "ReplicationBytesOutPerSec"
)
SIZE = gauge(
    "ottla_topic_log_bytes", "Bytes of the logs on this node.", "As much as retention leaves.",
    "See retention.ms, retention.bytes and cleanup.policy of the topic.", ("topic",), _LOG + "Size",
)  # fmt: skip
SEGMENTS = gauge(
    "ottla_topic_segments", "Segments of the logs on this node.", "Some for each partition.",
    "Very many small ones: see segment.bytes and segment.ms of the topic.", ("topic",), _LOG +
    "NumLogSegments",
)  # fmt: skip
END = gauge(
    "ottla_partition_log_end_offset", "The offset that the next record gets, of each replica on this node.",
    "It grows.", "Where nothing comes: ask the producers.", ("topic", "partition"), _LOG + "LogEndOffset",
)  # fmt: skip
START = gauge(
    "ottla_partition_log_start_offset", "The first offset that can be read.",
    "It follows the end at the distance of the retention.", "", ("topic", "partition"), _LOG +
    "LogStartOffset",
)  # fmt: skip
WATERMARK = gauge(
    "ottla_partition_high_watermark", "The offset before which all is committed, and can be consumed.",
    "The log's end, but for what is on its way to followers.", "See `ottla_under_min_isr_partitions`.",
    ("topic", "partition"), "kafka.cluster:type=Partition",
)  # fmt: skip
PRODUCERS = gauge(
    "ottla_producers", "Producers whose sequence numbers are remembered, in all partitions.",
    "One for each idempotent producer and each partition that it has written to in "
    "producer.id.expiration.ms.",
    "Producers that are made for each message: have them live longer.", (),
    "kafka.server:type=ReplicaManager,name=ProducerIdCount",
)  # fmt: skip
UNCOMPACTED = counter(
    "ottla_compaction_failures_total", "How often a log could not be compacted.", "It stands still.",
    "The log says why: damaged records, or too little space for what is written anew. It is tried again "
    "every ten minutes, and the log grows meanwhile.",
)  # fmt: skip
UNCOMPACTABLE = gauge(
    "ottla_uncompactable_partitions", "Logs that could not be compacted when that was tried last.", "0.",
    "As for `ottla_compaction_failures_total`.", (),
    "kafka.log:type=LogCleanerManager,name=uncleanable-partitions-count",
)  # fmt: skip
COMPACTED = counter(
    "ottla_compactions_total",
    "How often a log was compacted.",
    "It moves where topics with cleanup.policy=compact are written to. Nothing runs where nothing is to be "
    "compacted, so that the time since the last run says nothing.", "", (),
    "kafka.log:type=LogCleanerManager,name=time-since-last-run-ms",
)  # fmt: skip
DIRTY = gauge(
    "ottla_compaction_dirty_ratio",
    "Of the logs that were due to be compacted at the last look, the largest share that was not yet.",
    "0, and what min.cleanable.dirty.ratio says or a little more while one is compacted.",
    "If it stays near 1 compaction is slower than what is written: see log.cleaner.io.max.bytes.per.second "
    "and "
    "log.cleaner.dedupe.buffer.size.", (), "kafka.log:type=LogCleanerManager,name=max-dirty-percent",
)  # fmt: skip
FREE = gauge(
    "ottla_disk_free_bytes", "Bytes that are free on the volume of the data directory.",
    "A fifth of it or more.",
    "Keep less (retention.bytes), move replicas to other nodes, or have a larger disk: when it is full "
    "nothing can be "
    "written.",
)  # fmt: skip
CAPACITY = gauge("ottla_disk_bytes", "Bytes of that volume.", "As it is.")

METRICS = (
    *MESSAGES, *BATCHES, *BYTES_IN, *BYTES_OUT, *FOLLOWED, *FOLLOWING, SIZE, SEGMENTS, END, START, WATERMARK,
    PRODUCERS, UNCOMPACTED, UNCOMPACTABLE, COMPACTED, DIRTY, FREE, CAPACITY,
)  # fmt: skip

LOOKED_AT_ONCE = 50
# Partitions that have samples of their own: a topic may have tens of thousands.
PARTITIONS_MAX = 5_000


class _Sums:
    """Of the topics that have one label."""

    __slots__ = ("segments", "size", "traffic")

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.size = self.segments = 0


def collect(parts: Parts, page: Page) -> Iterator[None]:
    services, labels = parts.services, parts.topics
    topics, left = services.metadata.image.topics, services.replicas.left
    labels.keep(topics.keys(), left.by_topic.keys())
    sums: dict[str, _Sums] = {}
    whole, producers, uncompactable, shown = Traffic(), 0, 0, 0
    ends, starts, marks = page.lines(END), page.lines(START), page.lines(WATERMARK)
    held = list(services.replicas.partitions.values())
    # In the same step: what leaves between two pieces is among those that are held, and counts once.
    for name, traffic in left.by_topic.items():
        whole.add(traffic)
        kept = labels.of(name) if name in topics else labels.known(name)
        if kept is not None:
            sums.setdefault(kept, _Sums()).traffic.add(traffic)
    whole.add(left.others)
    for label in list(parts.left):
        if label != OTHERS and label not in topics:
            # Its topic is gone, and so are its samples.
            del parts.left[label]
        else:
            sums.setdefault(label, _Sums()).traffic.add(parts.left[label])
    for count, partition in enumerate(held, 1):
        name, index = partition.topic_partition
        label = labels.of(name)
        found = sums.get(label)
        if found is None:
            found = sums[label] = _Sums()
        log = partition.log
        whole.add(partition.traffic)
        found.traffic.add(partition.traffic)
        found.size += log.size_bytes
        found.segments += len(log.segments)
        producers += len(log.producers)
        uncompactable += log.replacement.fails and log.config.compacts
        if label != OTHERS and shown < PARTITIONS_MAX:
            shown += 1
            where = braced(END.labels, (name, index))
            ends.append(f"{END.name}{where} {log.log_end_offset}\n")
            starts.append(f"{START.name}{where} {log.log_start_offset}\n")
            marks.append(f"{WATERMARK.name}{where} {partition.high_watermark}\n")
        if count % LOOKED_AT_ONCE == 0:
            yield
    page.add(PRODUCERS, producers)
    cleaner = services.log_manager.cleaner
    page.add(UNCOMPACTED, cleaner.failures)
    page.add(UNCOMPACTABLE, uncompactable)
    page.add(COMPACTED, cleaner.rounds)
    page.add(DIRTY, cleaner.dirty_ratio)
    for (metric, _), value in zip(_PAIRS, _values(whole), strict=True):
        page.add(metric, value)
    yield
    for count, (label, found) in enumerate(sums.items(), 1):
        for (_, metric), value in zip(_PAIRS, _values(found.traffic), strict=True):
            page.add(metric, value, label)
        page.add(SIZE, found.size, label)
        page.add(SEGMENTS, found.segments, label)
        if count % LOOKED_AT_ONCE == 0:
            yield
    if parts.volume_bytes is not None:
        capacity, free = parts.volume_bytes
        page.add(CAPACITY, capacity)
        page.add(FREE, free)


_PAIRS = (MESSAGES, BATCHES, BYTES_IN, BYTES_OUT, FOLLOWED, FOLLOWING)


def _values(traffic: Traffic) -> tuple[int, ...]:
    """In the order of ``_PAIRS``."""
    return (
        traffic.messages_in, traffic.batches_in, traffic.bytes_in, traffic.bytes_out,
        traffic.follower_bytes_in, traffic.follower_bytes_out,
    )  # fmt: skip
