import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.connect.connector.policy.AllConnectorClientConfigOverridePolicy;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.runtime.Worker;
import org.apache.kafka.connect.runtime.distributed.DistributedConfig;
import org.apache.kafka.connect.runtime.distributed.DistributedHerder;
import org.apache.kafka.connect.runtime.isolation.Plugins;
import org.apache.kafka.connect.runtime.rest.RestClient;
import org.apache.kafka.connect.runtime.rest.entities.ConnectorStateInfo;
import org.apache.kafka.connect.storage.Converter;
import org.apache.kafka.connect.storage.KafkaConfigBackingStore;
import org.apache.kafka.connect.storage.KafkaOffsetBackingStore;
import org.apache.kafka.connect.storage.KafkaStatusBackingStore;
import org.apache.kafka.connect.util.SharedTopicAdmin;

/**
 * A worker of Kafka Connect in distributed mode, put together as Connect's own ConnectDistributed does it, but
 * without the REST server: the jars at hand lack one that it needs. Instead of REST there is a directory.
 *
 * <p>ConnectWorker WORKER.properties DIRECTORY: applies each NAME.properties that appears in the directory as
 * the configuration of the connector NAME, once, and prints "NAME STATE TASK=STATE..." whenever that changes.
 * Ends in order on SIGTERM.
 */
public final class ConnectWorker {
    private static final long LOOK_MS = 100;

    private ConnectWorker() {}

    public static void main(String[] args) throws Exception {
        Map<String, String> settings = Utils.propsToStringMap(Utils.loadProps(args[0]));
        DistributedHerder herder = herder(settings);
        herder.start();
        Runtime.getRuntime().addShutdownHook(new Thread(herder::stop));
        watch(herder, Path.of(args[1]));
    }

    private static DistributedHerder herder(Map<String, String> settings) {
        Plugins plugins = new Plugins(settings);
        plugins.compareAndSwapWithDelegatingLoader();
        DistributedConfig config = new DistributedConfig(settings);
        String base = settings.getOrDefault("client.id", "connect") + "-";
        Map<String, Object> adminSettings = new HashMap<>(config.originals());
        adminSettings.put("client.id", base + "shared-admin");
        SharedTopicAdmin admin = new SharedTopicAdmin(adminSettings);
        Converter keys = new JsonConverter();
        keys.configure(Map.of("schemas.enable", "false"), true);
        KafkaOffsetBackingStore offsets = new KafkaOffsetBackingStore(admin, () -> base, keys);
        offsets.configure(config);
        AllConnectorClientConfigOverridePolicy policy = new AllConnectorClientConfigOverridePolicy();
        policy.configure(Map.of());
        String id = settings.getOrDefault("client.id", "worker");
        Worker worker = new Worker(id, Time.SYSTEM, plugins, config, offsets, policy);
        Converter internal = worker.getInternalValueConverter();
        KafkaStatusBackingStore status = new KafkaStatusBackingStore(Time.SYSTEM, internal, admin, base);
        status.configure(config);
        KafkaConfigBackingStore configs =
                new KafkaConfigBackingStore(internal, config, worker.configTransformer(), admin, base);
        return new DistributedHerder(
                config,
                Time.SYSTEM,
                worker,
                config.kafkaClusterId(),
                status,
                configs,
                "http://" + id + ":0/",
                new RestClient(config),
                policy,
                List.of(),
                admin);
    }

    private static void watch(DistributedHerder herder, Path directory) throws Exception {
        Map<String, String> applied = new TreeMap<>();
        Map<String, String> shown = new TreeMap<>();
        while (true) {
            try (DirectoryStream<Path> files = Files.newDirectoryStream(directory, "*.properties")) {
                for (Path file : files) {
                    String name = file.getFileName().toString().replace(".properties", "");
                    if (!applied.containsKey(name)) {
                        applied.put(name, "");
                        apply(herder, name, file);
                    }
                }
            }
            for (String name : herder.connectors()) {
                String line = describe(herder, name);
                if (!line.equals(shown.put(name, line))) {
                    System.out.println(line);
                }
            }
            Thread.sleep(LOOK_MS);
        }
    }

    private static void apply(DistributedHerder herder, String name, Path file) throws Exception {
        Properties properties = Utils.loadProps(file.toString());
        Map<String, String> config = new HashMap<>(Utils.propsToStringMap(properties));
        config.put("name", name);
        herder.putConnectorConfig(
                name,
                config,
                true,
                (error, result) -> {
                    if (error != null) {
                        System.out.println(name + " REFUSED " + error);
                    }
                });
    }

    private static String describe(DistributedHerder herder, String name) {
        StringBuilder line = new StringBuilder(name);
        try {
            ConnectorStateInfo state = herder.connectorStatus(name);
            line.append(' ').append(state.connector().state());
            for (ConnectorStateInfo.TaskState task : state.tasks()) {
                line.append(' ').append(task.id()).append('=').append(task.state());
                if (task.trace() != null) {
                    line.append(" (").append(task.trace().lines().findFirst().orElse("")).append(')');
                }
            }
        } catch (org.apache.kafka.connect.errors.NotFoundException e) {
            line.append(" UNKNOWN");
        }
        return line.toString();
    }
}
