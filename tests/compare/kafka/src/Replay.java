// Reading all of a topic once.

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

final class Replay {
    private static final long SILENCE_MAX = 30_000_000_000L;

    private final String servers;
    private final Costs costs;
    private final Main.Command command;

    Replay(String servers, Costs costs, Main.Command command) {
        this.servers = servers;
        this.costs = costs;
        this.command = command;
    }

    static Map<String, Object> settings(String servers) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", servers);
        settings.put("key.deserializer", ByteArrayDeserializer.class);
        settings.put("value.deserializer", ByteArrayDeserializer.class);
        settings.put("enable.auto.commit", false);
        return settings;
    }

    ObjectNode run() throws Exception {
        Map<String, Object> settings = settings(servers);
        int batch = command.number("batch");
        settings.put("max.partition.fetch.bytes", batch);
        settings.put("fetch.max.bytes", 64 << 20);
        settings.put("max.poll.records", 10_000);
        settings.put("receive.buffer.bytes", 4 << 20);
        List<TopicPartition> all = List.of(new TopicPartition(command.text("stream"), 0));
        int wanted = command.number("events");
        if (command.is("cold")) {
            Costs.dropCaches();
        }
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings)) {
            consumer.assign(all);
            consumer.seekToBeginning(all);
            ObjectNode answer = costs.measured(command.number("size"), () -> {
                int read = 0;
                long last = System.nanoTime();
                while (read < wanted) {
                    int some = consumer.poll(Duration.ofSeconds(1)).count();
                    read += some;
                    if (some > 0) {
                        last = System.nanoTime();
                    } else if (System.nanoTime() - last > SILENCE_MAX) {
                        throw new IllegalStateException(read + " of " + wanted + " events came");
                    }
                }
                return read;
            });
            answer.put("batch", batch);
            answer.put("cold", command.is("cold"));
            return answer;
        }
    }
}
