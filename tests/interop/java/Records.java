import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Producing with every codec and reading back, without groups. */
final class Records {
    static final long EPOCH_MS = 1_600_000_000_000L;

    private Records() {}

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, Object... pairs) {
        Properties properties = Main.properties(bootstrap, pairs);
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, Object... pairs) {
        Properties properties = Main.properties(bootstrap, pairs);
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** TOPIC ACKS COUNT CODEC…: COUNT records with each codec in turn to partition 0; prints their offsets. */
    static void produce(String bootstrap, List<String> args) throws Exception {
        String topic = args.get(0);
        int count = Integer.parseInt(args.get(2));
        for (String codec : args.subList(3, args.size())) {
            List<Long> offsets = new ArrayList<>();
            try (KafkaProducer<byte[], byte[]> producer = producer(
                    bootstrap, "acks", args.get(1), "compression.type", codec, "linger.ms", 10)) {
                List<Future<RecordMetadata>> pending = new ArrayList<>();
                for (int i = 0; i < count; i++) {
                    byte[] key = i % 6 == 0 ? null : bytes("key " + i);
                    byte[] value = i % 6 == 3 ? null : bytes(codec + " " + i);
                    ProducerRecord<byte[], byte[]> record =
                            new ProducerRecord<>(topic, 0, EPOCH_MS + i, key, value);
                    record.headers().add("h", bytes("1")).add("h", bytes("2")).add("nothing", null);
                    pending.add(producer.send(record));
                }
                for (Future<RecordMetadata> future : pending) {
                    offsets.add(future.get().offset());
                }
            }
            Main.print(codec, offsets);
        }
    }

    /** TOPIC COUNT: every record of partition 0 from the beginning, then positions, times and a seek. */
    static void consume(String bootstrap, List<String> args) {
        TopicPartition partition = new TopicPartition(args.get(0), 0);
        int count = Integer.parseInt(args.get(1));
        try (KafkaConsumer<byte[], byte[]> consumer =
                consumer(bootstrap, "auto.offset.reset", "none", "enable.auto.commit", false)) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
            while (records.size() < count) {
                consumer.poll(Duration.ofSeconds(1)).forEach(records::add);
            }
            for (ConsumerRecord<byte[], byte[]> record : records) {
                Map<String, Object> found = new LinkedHashMap<>();
                found.put("offset", record.offset());
                found.put("key", record.key() == null ? null : new String(record.key()));
                found.put("value", record.value() == null ? null : new String(record.value()));
                found.put("timestamp", record.timestamp());
                List<String> headers = new ArrayList<>();
                record.headers().forEach(h ->
                        headers.add(h.key() + "=" + (h.value() == null ? "null" : new String(h.value()))));
                found.put("headers", headers);
                found.put("leader_epoch", record.leaderEpoch().orElse(-1));
                Main.print("record", found);
            }
            Main.print("beginning", consumer.beginningOffsets(List.of(partition)).get(partition));
            Main.print("end", consumer.endOffsets(List.of(partition)).get(partition));
            Map<TopicPartition, Long> times = new HashMap<>();
            times.put(partition, EPOCH_MS + 5);
            OffsetAndTimestamp at = consumer.offsetsForTimes(times).get(partition);
            Main.print("time", at == null ? null : at.offset());
            times.put(partition, EPOCH_MS + 1_000_000);
            Main.print("late", consumer.offsetsForTimes(times).get(partition));
            consumer.seek(partition, count - 1);
            var last = consumer.poll(Duration.ofSeconds(20)).records(partition);
            Main.print("seek", last.isEmpty() ? null : last.get(0).offset());
            Main.print("lag", consumer.currentLag(partition).orElse(-1));
            consumer.seek(partition, count + 100);
            try {
                consumer.poll(Duration.ofSeconds(20));
                Main.print("beyond", "nothing");
            } catch (org.apache.kafka.clients.consumer.OffsetOutOfRangeException refused) {
                Main.print("beyond", refused.getClass().getSimpleName());
            }
        }
    }

    /** TOPIC-WITH-A-SMALL-LIMIT: sends that must fail, by their exceptions. */
    static void refused(String bootstrap, List<String> args) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, "acks", "all")) {
            try {
                producer.send(new ProducerRecord<>(args.get(0), 0, null, new byte[50_000])).get();
                Main.print("large", "accepted");
            } catch (ExecutionException failure) {
                Main.print("large", failure.getCause().getClass().getSimpleName());
            }
            long offset = producer.send(new ProducerRecord<>(args.get(0), 0, null, new byte[5])).get().offset();
            Main.print("small", offset);
        }
        try (KafkaProducer<byte[], byte[]> producer = producer(
                bootstrap, "acks", "all", "transactional.id", "tx-" + args.get(0), "max.block.ms", 4000)) {
            producer.initTransactions();
            Main.print("transactions", "ready");
        } catch (org.apache.kafka.common.KafkaException failure) {
            Main.print("transactions", failure.getClass().getSimpleName());
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(
                bootstrap, "group.id", args.get(0), "group.protocol", "consumer")) {
            consumer.subscribe(List.of(args.get(0)));
            for (int i = 0; i < 50; i++) {
                consumer.poll(Duration.ofMillis(100));
            }
            Main.print("consumer protocol", "nothing");
        } catch (org.apache.kafka.common.KafkaException failure) {
            Main.print("consumer protocol", failure.getClass().getSimpleName());
        }
    }
}
