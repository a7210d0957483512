import java.util.List;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;

/** Logging in by a delegation token: id, HMAC, mechanism. */
final class Tokens {
    private Tokens() {}

    static void login(String bootstrap, List<String> args) throws Exception {
        String jaas = "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"" + args.get(0)
                + "\" password=\"" + args.get(1) + "\" tokenauth=\"true\";";
        try (Admin admin = Admin.create(Main.properties(bootstrap, "security.protocol", "SASL_PLAINTEXT",
                "sasl.mechanism", args.get(2), "sasl.jaas.config", jaas, "request.timeout.ms", 15_000,
                "default.api.timeout.ms", 20_000))) {
            Main.print("topics", admin.listTopics().names().get());
            try {
                Main.print("token", admin.createDelegationToken().delegationToken().get().tokenInfo().tokenId());
            } catch (ExecutionException failed) {
                Main.print("token", failed.getCause().getClass().getSimpleName());
            }
        }
    }
}
