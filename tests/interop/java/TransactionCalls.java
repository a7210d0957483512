import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.admin.UpdateFeaturesOptions;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;

/** Transactions: what is read of them, who is fenced, what an administrator sees and does. */
final class TransactionCalls {
    private static final int COUNT = 6;

    private TransactionCalls() {}

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, String id) {
        KafkaProducer<byte[], byte[]> producer = Records.producer(bootstrap, "acks", "all", "transactional.id", id);
        producer.initTransactions();
        return producer;
    }

    /** TOPIC GROUP: some, of which the odd ones are aborted, to two partitions, with offsets of the group. */
    static void records(String bootstrap, List<String> args) throws Exception {
        String topic = args.get(0);
        String group = args.get(1);
        TopicPartition first = new TopicPartition(topic, 0);
        try (Admin admin = AdminCalls.admin(bootstrap);
             KafkaConsumer<byte[], byte[]> member = Records.consumer(bootstrap, "group.id", group);
             KafkaProducer<byte[], byte[]> producer = producer(bootstrap, topic)) {
            List<Long> epochs = new ArrayList<>();
            for (int number = 0; number < COUNT; number++) {
                producer.beginTransaction();
                for (int i = 0; i < 6; i++) {
                    send(producer, topic, i % 2, number + "-" + i);
                }
                producer.sendOffsetsToTransaction(
                        Map.of(first, new OffsetAndMetadata(number + 1)), member.groupMetadata());
                producer.flush();
                epochs.add((long) admin.describeTransactions(List.of(topic)).description(topic).get().producerEpoch());
                if (number % 2 == 1) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
            // With transaction.version 2 each transaction has an epoch of its own.
            Main.print("epochs", epochs.stream().map(epoch -> epoch - epochs.get(0)).toList());
            Groups.await("the last markers", () -> settled(admin, topic));
            for (String isolation : List.of("read_committed", "read_uncommitted")) {
                Main.print(isolation, read(bootstrap, topic, isolation));
            }
            Main.print("offset",
                    admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(first).offset());
        }
    }

    private static void send(KafkaProducer<byte[], byte[]> producer, String topic, int partition, String value) {
        producer.send(new ProducerRecord<>(topic, partition, null, Records.bytes(value)));
    }

    private static List<TopicPartition> both(String topic) {
        return List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1));
    }

    /** Whether nothing is open any more. */
    private static boolean settled(Admin admin, String topic) {
        return both(topic).stream().allMatch(partition -> stable(admin, partition) == end(admin, partition));
    }

    /** The values of each partition, in the order of its log. */
    private static Map<String, List<String>> read(String bootstrap, String topic, String isolation) {
        Map<String, List<String>> values = new TreeMap<>();
        List<TopicPartition> both = both(topic);
        try (KafkaConsumer<byte[], byte[]> consumer =
                Records.consumer(bootstrap, "isolation.level", isolation, "auto.offset.reset", "earliest")) {
            consumer.assign(both);
            Map<TopicPartition, Long> ends = consumer.endOffsets(both);
            while (both.stream().anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                consumer.poll(Duration.ofSeconds(1)).forEach(record -> values
                        .computeIfAbsent("" + record.partition(), key -> new ArrayList<>())
                        .add(new String(record.value(), java.nio.charset.StandardCharsets.UTF_8)));
            }
        }
        return values;
    }

    private static long stable(Admin admin, TopicPartition partition) {
        return latest(admin, partition, IsolationLevel.READ_COMMITTED);
    }

    private static long end(Admin admin, TopicPartition partition) {
        return latest(admin, partition, IsolationLevel.READ_UNCOMMITTED);
    }

    private static long latest(Admin admin, TopicPartition partition, IsolationLevel isolation) {
        try {
            return admin.listOffsets(Map.of(partition, OffsetSpec.latest()), new ListOffsetsOptions(isolation))
                    .partitionResult(partition).get().offset();
        } catch (InterruptedException | ExecutionException failure) {
            throw new IllegalStateException(failure);
        }
    }

    private static String failure(Runnable call) {
        try {
            call.run();
            return "accepted";
        } catch (KafkaException failure) {
            return failure.getClass().getSimpleName();
        }
    }

    /** TOPIC: a second producer with the same id, and fenceProducers. */
    static void fencing(String bootstrap, List<String> args) throws Exception {
        String topic = args.get(0);
        try (Admin admin = AdminCalls.admin(bootstrap);
             KafkaProducer<byte[], byte[]> zombie = producer(bootstrap, topic)) {
            zombie.beginTransaction();
            send(zombie, topic, 0, "zombie");
            zombie.flush();
            try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, topic)) {
                Main.print("zombie", failure(zombie::commitTransaction));
                producer.beginTransaction();
                send(producer, topic, 0, "successor");
                producer.commitTransaction();
                producer.beginTransaction();
                send(producer, topic, 0, "to be fenced");
                producer.flush();
                var fenced = admin.fenceProducers(List.of(topic));
                fenced.all().get();
                Main.print("epoch grew", fenced.epochId(topic).get() > 0 && fenced.producerId(topic).get() >= 0);
                Main.print("fenced", failure(producer::commitTransaction));
            }
            Groups.await("the last markers", () -> settled(admin, topic));
            Main.print("state", admin.describeTransactions(List.of(topic)).description(topic).get().state());
            Main.print("read", read(bootstrap, topic, "read_committed"));
        }
    }

    /** TOPIC: describe, list, describeProducers, abortTransaction; nothing of who is not there. */
    static void admin(String bootstrap, List<String> args) throws Exception {
        String topic = args.get(0);
        TopicPartition partition = new TopicPartition(topic, 1);
        // The one after it has epoch 1, and so there is an epoch before that.
        producer(bootstrap, topic).close();
        try (Admin admin = AdminCalls.admin(bootstrap);
             KafkaProducer<byte[], byte[]> producer = producer(bootstrap, topic)) {
            producer.beginTransaction();
            send(producer, topic, 1, "open");
            producer.flush();
            var found = admin.describeTransactions(List.of(topic)).description(topic).get();
            Main.print("describe", List.of(found.state(), found.transactionTimeoutMs(), found.topicPartitions(),
                    found.transactionStartTimeMs().isPresent()));
            Main.print("describe none",
                    AdminCalls.failure(admin.describeTransactions(List.of("no " + topic)).all()));
            for (var options : List.of(
                    new ListTransactionsOptions(),
                    new ListTransactionsOptions().filterStates(List.of(TransactionState.ONGOING)),
                    new ListTransactionsOptions().filterProducerIds(List.of(found.producerId())),
                    new ListTransactionsOptions().filterOnTransactionalIdPattern(topic.substring(0, 6) + ".*"),
                    new ListTransactionsOptions().filterStates(List.of(TransactionState.COMPLETE_COMMIT)),
                    new ListTransactionsOptions().filterOnDuration(3_600_000))) {
                Main.print("list", admin.listTransactions(options).all().get().stream()
                        .anyMatch(listing -> listing.transactionalId().equals(topic)
                                && listing.producerId() == found.producerId()));
            }
            Main.print("list pattern", AdminCalls.failure(admin.listTransactions(
                    new ListTransactionsOptions().filterOnTransactionalIdPattern("(")).all()));
            var active = admin.describeProducers(List.of(partition)).partitionResult(partition).get()
                    .activeProducers().get(0);
            Main.print("producers", List.of(active.producerId() == found.producerId(),
                    active.producerEpoch() == found.producerEpoch(),
                    active.currentTransactionStartOffset().getAsLong()));
            Main.print("offsets", List.of(stable(admin, partition), end(admin, partition)));
            Main.print("abort of another", AdminCalls.failure(admin.abortTransaction(new AbortTransactionSpec(
                    partition, active.producerId(), (short) (active.producerEpoch() - 1), 0)).all()));
            admin.abortTransaction(new AbortTransactionSpec(
                    partition, active.producerId(), (short) active.producerEpoch(),
                    active.coordinatorEpoch().orElse(0))).all().get();
            Groups.await("the marker", () -> stable(admin, partition) == end(admin, partition));
            Main.print("aborted", List.of(stable(admin, partition), end(admin, partition)));
        }
    }

    /** LEVEL: has the cluster speak the transactions of this transaction.version. */
    static void version(String bootstrap, List<String> args) throws Exception {
        try (Admin admin = AdminCalls.admin(bootstrap)) {
            short level = Short.parseShort(args.get(0));
            var update = new FeatureUpdate(level, FeatureUpdate.UpgradeType.SAFE_DOWNGRADE);
            admin.updateFeatures(Map.of("transaction.version", update), new UpdateFeaturesOptions()).all().get();
            var features = admin.describeFeatures().featureMetadata().get().finalizedFeatures();
            var range = features.get("transaction.version");
            Main.print("version", range == null ? 0 : (int) range.maxVersionLevel());
        }
    }
}
