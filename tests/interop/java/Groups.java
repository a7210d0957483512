import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** Members of a classic group that come and go within one process. */
final class Groups {
    static final Duration DEADLINE = Duration.ofSeconds(40);

    private Groups() {}

    /** One member, polling in its own thread. */
    static final class Member extends Thread implements ConsumerRebalanceListener {
        final KafkaConsumer<byte[], byte[]> consumer;
        final Set<Integer> assigned = ConcurrentHashMap.newKeySet();
        final Set<String> values = ConcurrentHashMap.newKeySet();
        final AtomicInteger assignments = new AtomicInteger();
        final AtomicInteger wholeRevocations = new AtomicInteger();
        volatile boolean leaving;
        volatile Throwable failure;

        Member(String bootstrap, String topic, Object... pairs) {
            consumer = Records.consumer(bootstrap, pairs);
            consumer.subscribe(List.of(topic), this);
            setDaemon(true);
            start();
        }

        @Override public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            partitions.forEach(p -> assigned.add(p.partition()));
            assignments.incrementAndGet();
        }

        @Override public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            Set<Integer> gone = new HashSet<>();
            partitions.forEach(p -> gone.add(p.partition()));
            if (!gone.isEmpty() && gone.equals(new HashSet<>(assigned))) {
                wholeRevocations.incrementAndGet();
            }
            assigned.removeAll(gone);
        }

        @Override public void run() {
            try (consumer) {
                while (!leaving) {
                    consumer.poll(Duration.ofMillis(50)).forEach(r -> values.add(new String(r.value())));
                }
                consumer.commitSync();
            } catch (Throwable thrown) {
                failure = thrown;
            }
        }

        void leave() throws Exception {
            leaving = true;
            join(DEADLINE.toMillis());
            if (failure != null) {
                throw new IllegalStateException(failure);
            }
        }
    }

    static void await(String what, BooleanSupplier condition) throws Exception {
        long deadline = System.nanoTime() + DEADLINE.toNanos();
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException("did not happen: " + what);
            }
            Thread.sleep(20);
        }
    }

    /** True if the members hold all of `partitions` partitions, evenly, and none twice. */
    static boolean shared(int partitions, Member... members) {
        Set<Integer> all = new TreeSet<>();
        int held = 0;
        int least = Integer.MAX_VALUE;
        int most = 0;
        for (Member member : members) {
            int size = member.assigned.size();
            all.addAll(member.assigned);
            held += size;
            least = Math.min(least, size);
            most = Math.max(most, size);
        }
        return all.size() == partitions && held == partitions && most - least <= 1;
    }

    static void send(String bootstrap, String topic, int partitions, int from, int to) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = Records.producer(bootstrap, "acks", "all")) {
            for (int i = from; i < to; i++) {
                producer.send(new ProducerRecord<>(topic, i % partitions, null, Records.bytes("" + i))).get();
            }
        }
    }

    /** TOPIC PARTITIONS GROUP ASSIGNOR-CLASS: one, two, three, then two members while records flow. */
    static void rebalance(String bootstrap, List<String> args) throws Exception {
        String topic = args.get(0);
        int partitions = Integer.parseInt(args.get(1));
        Object[] pairs = {
            "group.id", args.get(2),
            "group.protocol", "classic",
            "partition.assignment.strategy", args.get(3),
            "auto.offset.reset", "earliest",
            "heartbeat.interval.ms", 200,
            "session.timeout.ms", 10_000,
        };
        Member one = new Member(bootstrap, topic, pairs);
        await("one owns all", () -> shared(partitions, one));
        send(bootstrap, topic, partitions, 0, 30);
        Member two = new Member(bootstrap, topic, pairs);
        await("two share", () -> shared(partitions, one, two));
        Main.print("whole revocations", one.wholeRevocations.get());
        send(bootstrap, topic, partitions, 30, 60);
        Member three = new Member(bootstrap, topic, pairs);
        await("three share", () -> shared(partitions, one, two, three));
        send(bootstrap, topic, partitions, 60, 90);
        one.leave();
        await("two share again", () -> shared(partitions, two, three));
        send(bootstrap, topic, partitions, 90, 120);
        Set<String> read = new HashSet<>();
        await("all read", () -> {
            List.of(one, two, three).forEach(member -> read.addAll(member.values));
            return read.size() == 120;
        });
        two.leave();
        three.leave();
        Main.print("read", read.size());
    }

    /** TOPIC PARTITIONS GROUP: a static member leaves and returns; the other keeps its partitions. */
    static void staticMembers(String bootstrap, List<String> args) throws Exception {
        String topic = args.get(0);
        int partitions = Integer.parseInt(args.get(1));
        List<Member> members = new ArrayList<>();
        for (String id : List.of("a", "b", "a")) {
            if (members.size() == 2) {
                int before = members.get(1).assignments.get();
                Set<Integer> held = new HashSet<>(members.get(0).assigned);
                members.get(0).leave();
                members.add(member(bootstrap, topic, args.get(2), id));
                await("the partitions are back", () -> held.equals(new HashSet<>(members.get(2).assigned)));
                Map<String, Object> result = new LinkedHashMap<>();
                result.put("kept", members.get(1).assigned.size());
                result.put("rebalances", members.get(1).assignments.get() - before);
                Main.print("returned", result);
                continue;
            }
            members.add(member(bootstrap, topic, args.get(2), id));
            await("shared", () -> shared(partitions, members.toArray(new Member[0])));
        }
        members.get(1).leave();
        members.get(2).leave();
    }

    private static Member member(String bootstrap, String topic, String group, String id) {
        return new Member(bootstrap, topic, "group.id", group, "group.instance.id", id,
                "heartbeat.interval.ms", 200, "session.timeout.ms", 30_000, "auto.offset.reset", "earliest");
    }
}
