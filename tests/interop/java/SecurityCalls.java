import java.nio.file.Path;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.CreateDelegationTokenOptions;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeConsumerGroupsOptions;
import org.apache.kafka.clients.admin.DescribeDelegationTokenOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.ExpireDelegationTokenOptions;
import org.apache.kafka.clients.admin.RenewDelegationTokenOptions;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialDeletion;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.quota.ClientQuotaFilterComponent;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.security.auth.KafkaPrincipal;
import org.apache.kafka.common.security.token.delegation.DelegationToken;

/** What administrators set about security, and what those are told who are none. */
final class SecurityCalls {
    private SecurityCalls() {}

    /**
     * TOPIC DIRECTORY LABEL…: what becomes of clients that log in as DIRECTORY/LABEL.properties say, then what
     * admin, alice and mallory may do who log in by SCRAM-SHA-256, as files with these labels say.
     */
    static void security(List<String> args) throws Exception {
        Logins.logins(args);
        String topic = args.get(0);
        Path directory = Path.of(args.get(1));
        calls(topic, directory.resolve("admin.properties"), directory.resolve("alice.properties"),
                directory.resolve("mallory.properties"));
    }

    private static void calls(String topic, Path adminFile, Path aliceFile, Path malloryFile) throws Exception {
        Properties alice = Logins.load(aliceFile);
        try (Admin admin = Admin.create(Logins.load(adminFile));
             Admin user = Admin.create(alice);
             Admin nobody = Admin.create(Logins.load(malloryFile))) {
            acls(admin);
            credentials(admin);
            quotas(admin);
            operations(topic, admin, "admin");
            operations(topic, user, "alice");
            refusals(topic, nobody);
            tokens(topic, user, admin, alice);
        }
    }

    private static AclBinding acl(PatternType pattern, String name, AclOperation operation, AclPermissionType type) {
        return new AclBinding(new ResourcePattern(ResourceType.TOPIC, name, pattern),
                new AccessControlEntry("User:java", "127.0.0.1", operation, type));
    }

    private static AclBindingFilter of(PatternType pattern, String name) {
        return new AclBindingFilter(new ResourcePatternFilter(ResourceType.TOPIC, name, pattern),
                new AccessControlEntryFilter("User:java", null, AclOperation.ANY, AclPermissionType.ANY));
    }

    private static List<String> shown(Collection<AclBinding> found) {
        return found.stream().map(one -> one.pattern().patternType() + " " + one.pattern().name() + " "
                + one.entry().operation() + " " + one.entry().permissionType()).sorted().toList();
    }

    private static void acls(Admin admin) throws Exception {
        AclBinding literal = acl(PatternType.LITERAL, "java-1", AclOperation.READ, AclPermissionType.ALLOW);
        AclBinding prefixed = acl(PatternType.PREFIXED, "java", AclOperation.WRITE, AclPermissionType.DENY);
        AclBinding all = acl(PatternType.LITERAL, "*", AclOperation.DESCRIBE, AclPermissionType.ALLOW);
        AclBinding wrong = new AclBinding(
                new ResourcePattern(ResourceType.CLUSTER, "another", PatternType.LITERAL), literal.entry());
        var created = admin.createAcls(List.of(literal, prefixed, all, wrong)).values();
        Main.print("create acls", List.of(AdminCalls.failure(created.get(literal)),
                AdminCalls.failure(created.get(all)), AdminCalls.failure(created.get(wrong))));
        for (PatternType pattern : List.of(PatternType.ANY, PatternType.MATCH, PatternType.LITERAL, PatternType.PREFIXED)) {
            Main.print("acls " + pattern, shown(admin.describeAcls(of(pattern, "java-1")).values().get()));
        }
        Main.print("acls", shown(admin.describeAcls(of(PatternType.ANY, null)).values().get()));
        Main.print("delete acls", shown(admin.deleteAcls(List.of(of(PatternType.MATCH, "java-1"))).all().get()));
        Main.print("acls left", shown(admin.describeAcls(of(PatternType.ANY, null)).values().get()));
    }

    private static void credentials(Admin admin) throws Exception {
        var info = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 5_000);
        var few = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 100);
        var altered = admin.alterUserScramCredentials(List.of(
                new UserScramCredentialUpsertion("java", info, "secret"),
                new UserScramCredentialUpsertion("few", few, "secret"),
                new UserScramCredentialDeletion("nobody", ScramMechanism.SCRAM_SHA_256))).values();
        for (String user : List.of("java", "few", "nobody")) {
            Main.print("credential of " + user, AdminCalls.failure(altered.get(user)));
        }
        var described = admin.describeUserScramCredentials(List.of("java", "nobody"));
        Main.print("described", described.description("java").get().credentialInfos().toString());
        Main.print("not described", AdminCalls.failure(described.description("nobody")));
        Main.print("users", admin.describeUserScramCredentials().users().get().stream().sorted().toList());
        admin.alterUserScramCredentials(List.of(
                new UserScramCredentialDeletion("java", ScramMechanism.SCRAM_SHA_256))).all().get();
        Main.print("users left", admin.describeUserScramCredentials().users().get().stream().sorted().toList());
    }

    private static ClientQuotaEntity entity(String user, String client) {
        Map<String, String> entries = new HashMap<>();
        entries.put(ClientQuotaEntity.USER, user);
        if (client != null) {
            entries.put(ClientQuotaEntity.CLIENT_ID, client);
        }
        return new ClientQuotaEntity(entries);
    }

    private static ClientQuotaAlteration quota(ClientQuotaEntity entity, String key, Double value) {
        return new ClientQuotaAlteration(entity, List.of(new ClientQuotaAlteration.Op(key, value)));
    }

    private static Map<String, Object> quotas(Admin admin, ClientQuotaFilter filter) throws Exception {
        Map<String, Object> found = new TreeMap<>();
        admin.describeClientQuotas(filter).entities().get().forEach((entity, values) ->
                found.put(new TreeMap<>(entity.entries()).toString(), new TreeMap<>(values)));
        return found;
    }

    private static void quotas(Admin admin) throws Exception {
        ClientQuotaEntity everybody = entity(null, null);
        ClientQuotaEntity both = entity("java", "client");
        ClientQuotaEntity strange = new ClientQuotaEntity(Map.of("colour", "red"));
        var altered = admin.alterClientQuotas(List.of(
                quota(everybody, "producer_byte_rate", 1e9), quota(both, "request_percentage", 250.5),
                quota(strange, "producer_byte_rate", 1e9))).values();
        Main.print("quotas set", List.of(AdminCalls.failure(altered.get(everybody)),
                AdminCalls.failure(altered.get(both)), AdminCalls.failure(altered.get(strange))));
        Main.print("unknown quota", AdminCalls.failure(
                admin.alterClientQuotas(List.of(quota(both, "colour", 1.0))).all()));
        Main.print("all quotas", quotas(admin, ClientQuotaFilter.all()));
        var ofUser = List.of(ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.USER, "java"));
        Main.print("quotas with", quotas(admin, ClientQuotaFilter.contains(ofUser)));
        Main.print("quotas only", quotas(admin, ClientQuotaFilter.containsOnly(ofUser)));
        Main.print("default quota", quotas(admin, ClientQuotaFilter.containsOnly(
                List.of(ClientQuotaFilterComponent.ofDefaultEntity(ClientQuotaEntity.USER)))));
        admin.alterClientQuotas(List.of(quota(everybody, "producer_byte_rate", null),
                quota(both, "request_percentage", null))).all().get();
        Main.print("quotas left", quotas(admin, ClientQuotaFilter.all()));
    }

    private static Object sorted(Set<AclOperation> operations) {
        return operations == null ? null : operations.stream().map(Enum::name).sorted().toList();
    }

    /** What one may do, as one is told. */
    private static void operations(String topic, Admin admin, String who) throws Exception {
        Main.print("cluster of " + who, sorted(admin.describeCluster(
                new DescribeClusterOptions().includeAuthorizedOperations(true)).authorizedOperations().get()));
        Main.print("topic of " + who, sorted(admin.describeTopics(List.of(topic),
                new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames().get()
                .get(topic).authorizedOperations()));
        String group = topic + "-group";
        Main.print("group of " + who, sorted(admin.describeConsumerGroups(List.of(group),
                new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true)).all().get()
                .get(group).authorizedOperations()));
        Main.print("topics of " + who, admin.listTopics().names().get().contains(topic));
    }

    private static void refusals(String topic, Admin nobody) throws Exception {
        AclBinding binding = acl(PatternType.LITERAL, "x", AclOperation.READ, AclPermissionType.ALLOW);
        Main.print("no createAcls", AdminCalls.failure(nobody.createAcls(List.of(binding)).all()));
        Main.print("no describeAcls", AdminCalls.failure(nobody.describeAcls(AclBindingFilter.ANY).values()));
        Main.print("no deleteAcls", AdminCalls.failure(nobody.deleteAcls(List.of(AclBindingFilter.ANY)).all()));
        Main.print("no describeCredentials", AdminCalls.failure(nobody.describeUserScramCredentials().users()));
        Main.print("no alterCredentials", AdminCalls.failure(nobody.alterUserScramCredentials(List.of(
                new UserScramCredentialDeletion("alice", ScramMechanism.SCRAM_SHA_256))).all()));
        Main.print("no describeQuotas", AdminCalls.failure(
                nobody.describeClientQuotas(ClientQuotaFilter.all()).entities()));
        Main.print("no alterQuotas", AdminCalls.failure(nobody.alterClientQuotas(
                List.of(quota(entity("x", null), "producer_byte_rate", 1.0))).all()));
        Main.print("no describeTopics", AdminCalls.failure(nobody.describeTopics(List.of(topic)).allTopicNames()));
        Main.print("no describeGroups", AdminCalls.failure(
                nobody.describeConsumerGroups(List.of(topic + "-group")).all()));
        Main.print("no tokens of others", AdminCalls.failure(nobody.createDelegationToken(
                new CreateDelegationTokenOptions().owner(new KafkaPrincipal("User", "alice"))).delegationToken()));
        Main.print("cluster of nobody", sorted(nobody.describeCluster(
                new DescribeClusterOptions().includeAuthorizedOperations(true)).authorizedOperations().get()));
        Main.print("listed to nobody", nobody.listTopics().names().get());
    }

    private static List<String> ids(Admin admin) throws Exception {
        return admin.describeDelegationToken().delegationTokens().get().stream()
                .map(token -> token.tokenInfo().owner() + " for " + token.tokenInfo().renewersAsString()).toList();
    }

    /** A token of alice's, which admin may renew; who comes by it is alice. */
    private static void tokens(String topic, Admin user, Admin admin, Properties alice) throws Exception {
        KafkaPrincipal renewer = new KafkaPrincipal("User", "admin");
        DelegationToken token = user.createDelegationToken(new CreateDelegationTokenOptions()
                .renewers(List.of(renewer)).maxLifetimeMs(3_600_000)).delegationToken().get();
        var info = token.tokenInfo();
        Main.print("token", List.of(info.owner(), info.tokenRequester(),
                info.maxTimestamp() - info.issueTimestamp(), info.expiryTimestamp() - info.issueTimestamp()));
        Main.print("tokens of alice", ids(user));
        Main.print("tokens for admin", admin.describeDelegationToken(new DescribeDelegationTokenOptions()
                .owners(List.of(renewer))).delegationTokens().get().size());
        Properties bearer = new Properties();
        bearer.putAll(alice);
        bearer.put("sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required username=\""
                + info.tokenId() + "\" password=\"" + Base64.getEncoder().encodeToString(token.hmac())
                + "\" tokenauth=\"true\";");
        Main.print("by token", Logins.visit(bearer, topic));
        try (Admin by = Admin.create(bearer)) {
            Main.print("token by token", AdminCalls.failure(by.createDelegationToken().delegationToken()));
        }
        long renewed = admin.renewDelegationToken(token.hmac(),
                new RenewDelegationTokenOptions().renewTimePeriodMs(60_000)).expiryTimestamp().get();
        Main.print("renewed", renewed < info.expiryTimestamp());
        Main.print("renew another", AdminCalls.failure(admin.renewDelegationToken(new byte[20]).expiryTimestamp()));
        var now = new ExpireDelegationTokenOptions().expiryTimePeriodMs(-1);
        user.expireDelegationToken(token.hmac(), now).expiryTimestamp().get();
        Main.print("tokens left", ids(user));
        Main.print("expire again", AdminCalls.failure(user.expireDelegationToken(token.hmac(), now).expiryTimestamp()));
        Main.print("by what was one", Logins.visit(bearer, topic));
    }
}
