import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Clients that log in, each as a file of properties says. */
final class Logins {
    private Logins() {}

    /** TOPIC DIRECTORY LABEL…: what becomes of clients that log in as DIRECTORY/LABEL.properties say. */
    static void logins(List<String> args) throws Exception {
        for (String label : args.subList(2, args.size())) {
            Main.print(label, visit(load(Path.of(args.get(1), label + ".properties")), args.get(0)));
        }
    }

    static Properties load(Path path) throws Exception {
        Properties properties = new Properties();
        try (Reader reader = Files.newBufferedReader(path)) {
            properties.load(reader);
        }
        return properties;
    }

    /** One message written and read, or why not. */
    static Object visit(Properties properties, String topic) throws Exception {
        String written = write(properties, topic);
        String read = read(properties, topic);
        return written.equals(read) ? read : List.of(written, read);
    }

    private static String write(Properties properties, String topic) throws Exception {
        try (var producer = new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
            producer.send(new ProducerRecord<>(topic, "value")).get();
            return "done";
        } catch (ExecutionException failure) {
            return failure.getCause().getClass().getSimpleName();
        } catch (KafkaException failure) {
            return failure.getClass().getSimpleName();
        }
    }

    private static String read(Properties given, String topic) {
        Properties properties = new Properties();
        properties.putAll(given);
        properties.put("group.id", topic + "-group");
        properties.put("auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            for (int polls = 0; polls < 200; polls++) {
                if (!consumer.poll(Duration.ofMillis(100)).isEmpty()) {
                    return "done";
                }
            }
            return "nothing";
        } catch (KafkaException failure) {
            return failure.getClass().getSimpleName();
        }
    }
}
