// Publishes to and reads from Kafka, for the comparison with Weft.
//
// Reads one command a line from standard input, as JSON, and answers each with one line of JSON on
// standard output. It ends with its input. One process does all, so that its code is compiled.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;

final class Main {
    private static final ObjectMapper JSON = new ObjectMapper();

    private Main() {}

    /** Arguments: addresses of the brokers, and their process ids, each by commas. */
    public static void main(String[] args) throws Exception {
        Costs costs = new Costs(List.of(args[1].split(",")));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            ObjectNode answer;
            try {
                answer = run(args[0], costs, new Command(JSON.readTree(line)));
            } catch (Exception error) {
                answer = JSON.createObjectNode().put("error", error.toString());
            }
            System.out.println(JSON.writeValueAsString(answer));
        }
    }

    private static ObjectNode run(String servers, Costs costs, Command command) throws Exception {
        switch (command.text("do")) {
            case "create":
                create(servers, command);
                return JSON.createObjectNode();
            case "delete":
                delete(servers, command.text("stream"));
                return JSON.createObjectNode();
            case "publish":
                return new Publish(servers, costs, command).run();
            case "replay":
                return new Replay(servers, costs, command).run();
            case "latency":
                return new Latency(servers, costs, command).run();
            default:
                throw new IllegalArgumentException("unknown command " + command.text("do"));
        }
    }

    /** One partition on three brokers; acknowledged events are on two of them at least. */
    private static void create(String servers, Command command) throws Exception {
        String topic = command.text("stream");
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", servers))) {
            NewTopic wanted = new NewTopic(topic, 1, (short) 3);
            Map<String, String> configs = new HashMap<>(Map.of("min.insync.replicas", "2"));
            if (command.is("fsync")) {
                configs.put("flush.messages", "1");
            }
            wanted.configs(configs);
            admin.createTopics(List.of(wanted)).all().get();
            // Told of before all brokers know it; the leader of the partition says when they do.
            while (inSync(admin, topic) < 3) {
                Thread.sleep(100);
            }
        }
        // Followers that asked for a partition too early pause for a second: let that pass.
        Thread.sleep(1_200);
    }

    private static int inSync(Admin admin, String topic) throws Exception {
        try {
            var described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
            return described.partitions().get(0).isr().size();
        } catch (java.util.concurrent.ExecutionException notYet) {
            return 0;
        }
    }

    private static void delete(String servers, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", servers))) {
            admin.deleteTopics(List.of(topic)).all().get();
        }
    }

    /** A line of the input. */
    static final class Command {
        private final JsonNode node;

        Command(JsonNode node) {
            this.node = node;
        }

        String text(String field) {
            return node.path(field).asText();
        }

        int number(String field) {
            return node.path(field).asInt();
        }

        boolean is(String field) {
            return node.path(field).asBoolean();
        }
    }
}
