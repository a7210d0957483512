import static org.apache.kafka.clients.admin.AlterConfigOp.OpType.APPEND;
import static org.apache.kafka.clients.admin.AlterConfigOp.OpType.DELETE;
import static org.apache.kafka.clients.admin.AlterConfigOp.OpType.SET;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.ListOffsetsResult;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.UpdateFeaturesOptions;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;

/** The Admin client, call by call; a call that must be refused prints its exception's class. */
final class AdminCalls {
    private AdminCalls() {}

    static Admin admin(String bootstrap) {
        return Admin.create(Main.properties(bootstrap, "request.timeout.ms", 15_000, "default.api.timeout.ms", 20_000));
    }

    /** The simple name of the exception that `future` fails with, or "accepted". */
    static String failure(KafkaFuture<?> future) throws InterruptedException {
        try {
            future.get();
            return "accepted";
        } catch (ExecutionException failed) {
            return failed.getCause().getClass().getSimpleName();
        }
    }

    static Map<String, Object> described(TopicDescription topic) {
        Map<String, Object> found = new LinkedHashMap<>();
        found.put("name", topic.name());
        found.put("id", topic.topicId());
        found.put("internal", topic.isInternal());
        List<Object> partitions = new ArrayList<>();
        topic.partitions().forEach(p -> partitions.add(
                List.of(p.partition(), p.leader().id(), p.replicas().size(), p.isr().size())));
        found.put("partitions", partitions);
        return found;
    }

    /** NAME: create, describe by name and id, grow, delete by name and by id, and what must be refused. */
    static void topics(String bootstrap, List<String> args) throws Exception {
        String name = args.get(0);
        try (Admin admin = admin(bootstrap)) {
            var created = admin.createTopics(List.of(
                    new NewTopic(name, 3, (short) 1).configs(Map.of("retention.ms", "1000"))));
            created.all().get();
            Main.print("create", List.of(
                    created.numPartitions(name).get(), created.replicationFactor(name).get(),
                    created.config(name).get().get("retention.ms").value()));
            Uuid id = created.topicId(name).get();
            Main.print("id", id);
            NewTopic defaults = new NewTopic(name + "-d", Optional.empty(), Optional.empty());
            admin.createTopics(List.of(defaults)).all().get();
            NewTopic dry = new NewTopic(name + "-dry", 1, (short) 1);
            admin.createTopics(List.of(dry), new CreateTopicsOptions().validateOnly(true)).all().get();
            Map<String, NewTopic> refused = new LinkedHashMap<>();
            refused.put("exists", new NewTopic(name, 3, (short) 1));
            refused.put("slash", new NewTopic("a/b", 1, (short) 1));
            refused.put("dots", new NewTopic("..", 1, (short) 1));
            refused.put("empty", new NewTopic("", 1, (short) 1));
            refused.put("long", new NewTopic("x".repeat(250), 1, (short) 1));
            refused.put("partitions", new NewTopic(name + "-p", 0, (short) 1));
            refused.put("replicas", new NewTopic(name + "-r", 1, (short) 3));
            refused.put("config", new NewTopic(name + "-c", 1, (short) 1).configs(Map.of("no.such", "1")));
            refused.put("value", new NewTopic(name + "-v", 1, (short) 1).configs(Map.of("retention.ms", "x")));
            for (var entry : refused.entrySet()) {
                Main.print("create " + entry.getKey(), failure(admin.createTopics(List.of(entry.getValue())).all()));
            }
            Main.print("list", admin.listTopics().names().get().stream().filter(n -> n.startsWith(name)).sorted().toList());
            Main.print("describe", described(admin.describeTopics(List.of(name)).allTopicNames().get().get(name)));
            Main.print("describe id", described(
                    admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id)));
            var paged = admin.describeTopics(List.of(name), new DescribeTopicsOptions().partitionSizeLimitPerResponse(2));
            Main.print("describe paged", described(paged.allTopicNames().get().get(name)));
            Main.print("describe none", failure(admin.describeTopics(List.of(name + "-none")).allTopicNames()));
            Main.print("describe no id", failure(
                    admin.describeTopics(TopicCollection.ofTopicIds(List.of(Uuid.randomUuid()))).allTopicIds()));
            admin.createPartitions(Map.of(name, NewPartitions.increaseTo(5))).all().get();
            Main.print("grown", admin.describeTopics(List.of(name)).allTopicNames().get().get(name).partitions().size());
            Main.print("shrink", failure(admin.createPartitions(Map.of(name, NewPartitions.increaseTo(2))).all()));
            Main.print("grow none", failure(
                    admin.createPartitions(Map.of(name + "-none", NewPartitions.increaseTo(2))).all()));
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
            admin.deleteTopics(List.of(name + "-d")).all().get();
            Main.print("delete none", failure(admin.deleteTopics(List.of(name)).all()));
            Main.print("delete no id", failure(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all()));
            Main.print("left", admin.listTopics().names().get().stream().filter(n -> n.startsWith(name)).toList());
        }
    }

    static Config config(Admin admin, ConfigResource resource) throws Exception {
        return admin.describeConfigs(List.of(resource)).all().get().get(resource);
    }

    static KafkaFuture<Void> alter(Admin admin, ConfigResource resource, String key, String value,
                                   AlterConfigOp.OpType op) {
        Collection<AlterConfigOp> ops = List.of(new AlterConfigOp(new ConfigEntry(key, value), op));
        return admin.incrementalAlterConfigs(Map.of(resource, ops)).all();
    }

    /** TOPIC NODE: topic and broker configurations, what is refused, and listConfigResources. */
    static void configs(String bootstrap, List<String> args) throws Exception {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, args.get(0));
        try (Admin admin = admin(bootstrap)) {
            String node = String.valueOf(admin.describeCluster().controller().get().id());
            ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, node);
            ConfigEntry fresh = config(admin, topic).get("max.message.bytes");
            Main.print("fresh", List.of(fresh.value(), fresh.source(), fresh.isDefault(), fresh.type()));
            alter(admin, topic, "max.message.bytes", "5000", SET).get();
            ConfigEntry set = config(admin, topic).get("max.message.bytes");
            Main.print("set", List.of(set.value(), set.source(), set.isDefault()));
            alter(admin, topic, "cleanup.policy", "compact", APPEND).get();
            Main.print("append", config(admin, topic).get("cleanup.policy").value());
            alter(admin, topic, "max.message.bytes", null, DELETE).get();
            Main.print("deleted", config(admin, topic).get("max.message.bytes").value());
            Main.print("unknown", failure(alter(admin, topic, "no.such", "1", SET)));
            Main.print("bad", failure(alter(admin, topic, "segment.bytes", "many", SET)));
            ConfigResource none = new ConfigResource(ConfigResource.Type.TOPIC, args.get(0) + "-none");
            Main.print("none", failure(admin.describeConfigs(List.of(none)).all()));
            Main.print("alter none", failure(alter(admin, none, "retention.ms", "1", SET)));
            ConfigEntry threads = config(admin, broker).get("log.retention.ms");
            Main.print("broker", threads == null ? null : threads.isReadOnly());
            alter(admin, broker, "message.max.bytes", "2000000", SET).get();
            ConfigEntry dynamic = config(admin, broker).get("message.max.bytes");
            Main.print("broker set", List.of(dynamic.value(), dynamic.source()));
            Main.print("inherited", config(admin, topic).get("max.message.bytes").value());
            alter(admin, broker, "message.max.bytes", null, DELETE).get();
            Main.print("read-only", failure(alter(admin, broker, "node.id", "7", SET)));
            var resources = admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC),
                    new org.apache.kafka.clients.admin.ListConfigResourcesOptions()).all().get();
            Main.print("resources", resources.stream().map(ConfigResource::name).anyMatch(args.get(0)::equals));
            otherConfigs(admin, args.get(0), node);
        }
    }

    /** Configurations of a group and of a subscription to client metrics, and a logger's level. */
    static void otherConfigs(Admin admin, String name, String node) throws Exception {
        String lockMs = "share.record.lock.duration.ms";
        for (var of : Map.of(ConfigResource.Type.GROUP, lockMs,
                             ConfigResource.Type.CLIENT_METRICS, "interval.ms").entrySet()) {
            ConfigResource resource = new ConfigResource(of.getKey(), name);
            String key = of.getValue();
            ConfigEntry fresh = config(admin, resource).get(key);
            Main.print("fresh " + of.getKey(), List.of(fresh.value(), fresh.source(), fresh.isReadOnly(), fresh.type()));
            alter(admin, resource, key, "20000", SET).get();
            ConfigEntry set = config(admin, resource).get(key);
            Main.print("set " + of.getKey(), List.of(set.value(), set.source()));
            Main.print("bad " + of.getKey(), failure(alter(admin, resource, key, "5", SET)));
            Main.print("list " + of.getKey(), failure(alter(admin, resource, "metrics", "a", APPEND)));
            Main.print("resources " + of.getKey(), admin.listConfigResources(Set.of(of.getKey()),
                    new org.apache.kafka.clients.admin.ListConfigResourcesOptions()).all().get().contains(resource));
            alter(admin, resource, key, null, DELETE).get();
        }
        ConfigResource loggers = new ConfigResource(ConfigResource.Type.BROKER_LOGGER, node);
        String logger = "ottla.coordinators.groups.coordinator";
        String before = config(admin, loggers).get(logger).value();
        alter(admin, loggers, logger, "TRACE", SET).get();
        ConfigEntry set = config(admin, loggers).get(logger);
        Main.print("logger", List.of(set.value(), set.source()));
        Main.print("logger bad", failure(alter(admin, loggers, logger, "LOUD", SET)));
        Main.print("logger append", failure(alter(admin, loggers, logger, "INFO", APPEND)));
        Main.print("logger root", failure(alter(admin, loggers, "root", null, DELETE)));
        alter(admin, loggers, logger, null, DELETE).get();
        Main.print("logger after", before.equals(config(admin, loggers).get(logger).value()));
    }

    static long offset(Admin admin, TopicPartition partition, OffsetSpec spec) throws Exception {
        ListOffsetsResult.ListOffsetsResultInfo found =
                admin.listOffsets(Map.of(partition, spec)).partitionResult(partition).get();
        return found.offset();
    }

    /** TOPIC: listOffsets by every kind, deleteRecords, describeProducers. */
    static void offsets(String bootstrap, List<String> args) throws Exception {
        TopicPartition partition = new TopicPartition(args.get(0), 0);
        TopicPartition none = new TopicPartition(args.get(0), 9);
        try (Admin admin = admin(bootstrap);
             KafkaProducer<byte[], byte[]> producer = Records.producer(bootstrap, "acks", "all")) {
            Main.print("empty max", offset(admin, partition, OffsetSpec.maxTimestamp()));
            for (int i = 0; i < 10; i++) {
                long timestampMs = Records.EPOCH_MS + i * 7 % 10;
                producer.send(new ProducerRecord<>(args.get(0), 0, timestampMs, null, Records.bytes("" + i)));
            }
            producer.flush();
            Main.print("earliest", offset(admin, partition, OffsetSpec.earliest()));
            Main.print("latest", offset(admin, partition, OffsetSpec.latest()));
            Main.print("max", offset(admin, partition, OffsetSpec.maxTimestamp()));
            Main.print("time", offset(admin, partition, OffsetSpec.forTimestamp(Records.EPOCH_MS + 8)));
            Main.print("late", offset(admin, partition, OffsetSpec.forTimestamp(Records.EPOCH_MS + 100)));
            Main.print("local", offset(admin, partition, OffsetSpec.earliestLocal()));
            Main.print("tiered", offset(admin, partition, OffsetSpec.latestTiered()));
            var producers = admin.describeProducers(List.of(partition)).partitionResult(partition).get();
            var state = producers.activeProducers().get(0);
            Main.print("producers", List.of(
                    producers.activeProducers().size(), state.producerEpoch(), state.lastSequence(),
                    state.lastTimestamp() > 0, state.currentTransactionStartOffset().isPresent()));
            var deleted = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(4)));
            Main.print("delete", deleted.lowWatermarks().get(partition).get().lowWatermark());
            Main.print("after", offset(admin, partition, OffsetSpec.earliest()));
            Main.print("beyond", failure(admin.deleteRecords(
                    Map.of(partition, RecordsToDelete.beforeOffset(50))).lowWatermarks().get(partition)));
            var all = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(-1)));
            Main.print("delete all", all.lowWatermarks().get(partition).get().lowWatermark());
        }
    }

    /** TOPIC: describeCluster, describeLogDirs, describeFeatures, updateFeatures. */
    static void cluster(String bootstrap, List<String> args) throws Exception {
        try (Admin admin = admin(bootstrap)) {
            var cluster = admin.describeCluster();
            Main.print("cluster", cluster.clusterId().get());
            var nodes = cluster.nodes().get();
            Main.print("nodes", nodes.stream().map(n -> n.host() + ":" + n.port()).toList());
            Main.print("controller", cluster.controller().get().id());
            var ids = nodes.stream().map(n -> n.id()).toList();
            var folders = admin.describeLogDirs(ids).allDescriptions().get().get(ids.get(0));
            Map<String, Object> sizes = new TreeMap<>();
            folders.values().forEach(folder -> {
                Main.print("volume", folder.totalBytes().isPresent() && folder.totalBytes().getAsLong() > 0);
                folder.replicaInfos().forEach((p, info) -> {
                    if (p.topic().equals(args.get(0))) {
                        sizes.put(p.toString(), List.of(info.size() > 0, info.offsetLag(), info.isFuture()));
                    }
                });
            });
            Main.print("sizes", sizes);
            var features = admin.describeFeatures().featureMetadata().get();
            Map<String, Object> supported = new TreeMap<>();
            features.supportedFeatures().forEach((name, range) ->
                    supported.put(name, List.of((int) range.minVersion(), (int) range.maxVersion())));
            Main.print("features", supported);
            Map<String, Object> finalized = new TreeMap<>();
            features.finalizedFeatures().forEach((name, range) ->
                    finalized.put(name, List.of((int) range.minVersionLevel(), (int) range.maxVersionLevel())));
            Main.print("finalized", finalized);
            Main.print("epoch", features.finalizedFeaturesEpoch().get());
            var same = new FeatureUpdate((short) 30, FeatureUpdate.UpgradeType.UPGRADE);
            admin.updateFeatures(Map.of("metadata.version", same), new UpdateFeaturesOptions()).all().get();
            var lower = new FeatureUpdate((short) 29, FeatureUpdate.UpgradeType.UNSAFE_DOWNGRADE);
            Main.print("lower", failure(admin.updateFeatures(Map.of("metadata.version", lower),
                    new UpdateFeaturesOptions().validateOnly(true)).values().get("metadata.version")));
        }
    }

    /** TOPIC GROUP: list, describe, offsets, alter, delete offsets, remove members, delete. */
    static void groups(String bootstrap, List<String> args) throws Exception {
        TopicPartition partition = new TopicPartition(args.get(0), 0);
        String group = args.get(1);
        Groups.send(bootstrap, args.get(0), 1, 0, 10);
        try (Admin admin = admin(bootstrap)) {
            Groups.Member member = new Groups.Member(bootstrap, args.get(0), "group.id", group,
                    "auto.offset.reset", "earliest", "client.id", "the-client", "heartbeat.interval.ms", 200);
            Groups.await("all read", () -> member.values.size() == 10);
            var listed = admin.listGroups().all().get().stream().filter(g -> g.groupId().equals(group)).toList();
            Main.print("list", listed.stream().map(g -> List.of(
                    g.type().get(), g.protocol(), g.groupState().get())).toList());
            var described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            Main.print("describe", List.of(described.groupState(), described.partitionAssignor(),
                    described.members().iterator().next().clientId(),
                    described.members().iterator().next().assignment().topicPartitions()));
            var classic = admin.describeClassicGroups(List.of(group)).all().get().get(group);
            Main.print("classic", List.of(classic.state(), classic.protocol(), classic.protocolData()));
            Main.print("alive", failure(admin.deleteConsumerGroups(List.of(group)).all()));
            Main.print("subscribed", failure(
                    admin.deleteConsumerGroupOffsets(group, Set.of(partition)).partitionResult(partition)));
            member.leave();
            var offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            Main.print("offsets", offsets.get(partition).offset());
            admin.alterConsumerGroupOffsets(
                    group, Map.of(partition, new OffsetAndMetadata(4, Optional.of(0), "note"))).all().get();
            OffsetAndMetadata altered =
                    admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(partition);
            Main.print("altered", List.of(altered.offset(), altered.metadata(), altered.leaderEpoch().orElse(-1)));
            try (KafkaConsumer<byte[], byte[]> consumer =
                    Records.consumer(bootstrap, "group.id", group, "auto.offset.reset", "none")) {
                consumer.assign(List.of(partition));
                var records = consumer.poll(Duration.ofSeconds(20)).records(partition);
                Main.print("resumed", records.isEmpty() ? null : records.get(0).offset());
            }
            admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all().get();
            Main.print("no offsets", admin.listConsumerGroupOffsets(group)
                    .partitionsToOffsetAndMetadata().get().containsKey(partition));
            Main.print("delete", failure(admin.deleteConsumerGroups(List.of(group)).all()));
            Main.print("delete none", failure(admin.deleteConsumerGroups(List.of(group)).all()));
            Main.print("describe none", failure(admin.describeConsumerGroups(List.of(group)).all()));
        }
    }
}
