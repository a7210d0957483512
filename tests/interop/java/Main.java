import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Properties;

/** The official Java client at work against one broker; each subcommand prints one JSON object a line. */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws Exception {
        List<String> rest = Arrays.asList(args).subList(2, args.length);
        String bootstrap = args[1];
        switch (args[0]) {
            case "produce" -> Records.produce(bootstrap, rest);
            case "consume" -> Records.consume(bootstrap, rest);
            case "refused" -> Records.refused(bootstrap, rest);
            case "transactions" -> Transactions.transactions(bootstrap, rest);
            case "group" -> Groups.rebalance(bootstrap, rest);
            case "static" -> Groups.staticMembers(bootstrap, rest);
            case "admin-topics" -> AdminCalls.topics(bootstrap, rest);
            case "admin-configs" -> AdminCalls.configs(bootstrap, rest);
            case "admin-offsets" -> AdminCalls.offsets(bootstrap, rest);
            case "admin-cluster" -> AdminCalls.cluster(bootstrap, rest);
            case "admin-groups" -> AdminCalls.groups(bootstrap, rest);
            case "transactions-offsets" -> TransactionCalls.records(bootstrap, rest);
            case "fencing" -> TransactionCalls.fencing(bootstrap, rest);
            case "admin-transactions" -> TransactionCalls.admin(bootstrap, rest);
            case "transaction-version" -> TransactionCalls.version(bootstrap, rest);
            case "token-login" -> Tokens.login(bootstrap, rest);
            case "logins" -> Logins.logins(rest);
            case "security" -> SecurityCalls.security(rest);
            case "segments" -> Segments.dump(rest);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    /** Client properties from name, value, name, value, … */
    static Properties properties(String bootstrap, Object... pairs) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        for (int i = 0; i < pairs.length; i += 2) {
            properties.put((String) pairs[i], pairs[i + 1]);
        }
        return properties;
    }

    /** Print {"step": step, "result": result} as one line. */
    static void print(String step, Object result) {
        System.out.println("{\"step\": " + json(step) + ", \"result\": " + json(result) + "}");
    }

    /** JSON of maps, collections, numbers, booleans and null; anything else as its string. */
    static String json(Object value) {
        if (value == null || value instanceof Number || value instanceof Boolean) {
            return String.valueOf(value);
        }
        StringBuilder text = new StringBuilder();
        if (value instanceof Map<?, ?> map) {
            map.forEach((k, v) -> text.append(text.isEmpty() ? "" : ", ")
                    .append(json(String.valueOf(k))).append(": ").append(json(v)));
            return "{" + text + "}";
        }
        if (value instanceof Iterable<?> items) {
            items.forEach(item -> text.append(text.isEmpty() ? "" : ", ").append(json(item)));
            return "[" + text + "]";
        }
        for (char c : value.toString().toCharArray()) {
            if (c == '"' || c == '\\') {
                text.append('\\').append(c);
            } else if (c < 0x20) {
                text.append(String.format("\\u%04x", (int) c));
            } else {
                text.append(c);
            }
        }
        return "\"" + text + "\"";
    }
}
