import java.time.Duration;
import java.util.List;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ProducerFencedException;

/** Transactions of the producer, and what a consumer of committed records sees. */
class Transactions {
    /** TOPIC COUNT: COUNT transactions of three partitions, every other one aborted; then a zombie. */
    static void transactions(String bootstrap, List<String> args) throws Exception {
        String topic = args.get(0);
        int count = Integer.parseInt(args.get(1));
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, topic)) {
            producer.initTransactions();
            for (int number = 0; number < count; number++) {
                producer.beginTransaction();
                for (int partition = 0; partition < 3; partition++) {
                    producer.send(new ProducerRecord<>(topic, partition, null, Records.bytes("" + number)));
                }
                if (number % 2 == 0) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
            Main.print("empty commit", empty(producer, true));
            Main.print("empty abort", empty(producer, false));
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 0, null, Records.bytes("zombie"))).get();
            try (KafkaProducer<byte[], byte[]> successor = producer(bootstrap, topic)) {
                successor.initTransactions();
                try {
                    producer.commitTransaction();
                    Main.print("zombie", "committed");
                } catch (ProducerFencedException fenced) {
                    Main.print("zombie", fenced.getClass().getSimpleName());
                }
                successor.beginTransaction();
                successor.send(new ProducerRecord<>(topic, 0, null, Records.bytes("successor")));
                successor.commitTransaction();
            }
        }
        Main.print("committed", committed(bootstrap, topic, count / 2 * 3 + 1));
        try (Admin admin = Admin.create(Main.properties(bootstrap))) {
            var described = admin.describeTransactions(List.of("tx-" + topic)).all().get().get("tx-" + topic);
            Main.print("state", described.state().toString());
            Main.print("listed", admin.listTransactions().all().get().stream()
                .filter(one -> one.transactionalId().equals("tx-" + topic)).count());
        }
    }

    private static KafkaProducer<byte[], byte[]> producer(String bootstrap, String topic) {
        return Records.producer(bootstrap, "transactional.id", "tx-" + topic, "linger.ms", 0);
    }

    private static String empty(KafkaProducer<byte[], byte[]> producer, boolean commit) {
        producer.beginTransaction();
        if (commit) {
            producer.commitTransaction();
        } else {
            producer.abortTransaction();
        }
        return "done";
    }

    /** How many committed records there are, all of transactions that were committed, and none twice. */
    private static int committed(String bootstrap, String topic, int wanted) {
        int found = 0;
        try (KafkaConsumer<byte[], byte[]> consumer = Records.consumer(
                bootstrap, "isolation.level", "read_committed", "auto.offset.reset", "earliest")) {
            consumer.assign(List.of(
                new TopicPartition(topic, 0), new TopicPartition(topic, 1), new TopicPartition(topic, 2)));
            long end = System.currentTimeMillis() + 30_000;
            while (found < wanted && System.currentTimeMillis() < end) {
                for (ConsumerRecord<byte[], byte[]> one : consumer.poll(Duration.ofMillis(200))) {
                    String text = new String(one.value(), java.nio.charset.StandardCharsets.UTF_8);
                    if (!text.equals("successor") && Integer.parseInt(text) % 2 != 0) {
                        throw new IllegalStateException("aborted: " + text);
                    }
                    found++;
                }
            }
            found += consumer.poll(Duration.ofMillis(500)).count();
        }
        return found;
    }
}
