// Publishing: batches as tuned, records one by one with many on their way, or one after the other.

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

final class Publish {
    private final String servers;
    private final Costs costs;
    private final Main.Command command;
    private final ProducerRecord<byte[], byte[]> record;
    private final long nanosMax;

    Publish(String servers, Costs costs, Main.Command command) {
        this.servers = servers;
        this.costs = costs;
        this.command = command;
        this.record = new ProducerRecord<>(command.text("stream"), payload(command.number("size")));
        this.nanosMax = command.number("seconds_max") * 1_000_000_000L;
    }

    /** Random, so that neither disk nor wire can compress it. */
    static byte[] payload(int size) {
        byte[] payload = new byte[size];
        new Random().nextBytes(payload);
        return payload;
    }

    static Map<String, Object> settings(String servers) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", servers);
        settings.put("acks", "all");
        settings.put("key.serializer", ByteArraySerializer.class);
        settings.put("value.serializer", ByteArraySerializer.class);
        return settings;
    }

    ObjectNode run() throws Exception {
        Map<String, Object> settings = settings(servers);
        int window = command.number("window");
        switch (command.text("form")) {
            case "batched":
                settings.put("linger.ms", command.number("linger"));
                settings.put("batch.size", command.number("batch"));
                settings.put("buffer.memory", 64 << 20);
                settings.put("max.request.size", 8 << 20);
                return windowed(settings, Integer.MAX_VALUE);
            case "joined":
                settings.put("linger.ms", command.number("linger"));
                settings.put("batch.size", command.number("batch"));
                return windowed(settings, window);
            case "single":
                // No record is joined with another one. Recognising retries would allow no more
                // than five requests on their way.
                settings.put("linger.ms", 0);
                settings.put("batch.size", 0);
                settings.put("enable.idempotence", false);
                settings.put("max.in.flight.requests.per.connection", window);
                return windowed(settings, window);
            case "sync":
                settings.put("linger.ms", 0);
                return sync(settings);
            default:
                throw new IllegalArgumentException("unknown form " + command.text("form"));
        }
    }

    private boolean goesOn(int published, long begin) {
        // Asking for the time costs something.
        return published < command.number("events")
                && (published % 64 != 0 || System.nanoTime() - begin < nanosMax);
    }

    private ObjectNode windowed(Map<String, Object> settings, int window) throws Exception {
        Semaphore room = new Semaphore(window);
        AtomicReference<Exception> failure = new AtomicReference<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            producer.partitionsFor(record.topic());
            ObjectNode answer = costs.measured(command.number("size"), () -> {
                int published = 0;
                long begin = System.nanoTime();
                for (; goesOn(published, begin); published++) {
                    room.acquire();
                    producer.send(record, (metadata, error) -> {
                        if (error != null) {
                            failure.set(error);
                        }
                        room.release();
                    });
                }
                producer.flush();
                return published;
            });
            if (failure.get() != null) {
                throw failure.get();
            }
            answer.put("form", command.text("form"));
            answer.put("linger_ms", (int) settings.get("linger.ms"));
            answer.put("batch_bytes", (int) settings.get("batch.size"));
            return answer;
        }
    }

    private ObjectNode sync(Map<String, Object> settings) throws Exception {
        long[] times = new long[command.number("events")];
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            producer.partitionsFor(record.topic());
            ObjectNode answer = costs.measured(command.number("size"), () -> {
                int published = 0;
                long begin = System.nanoTime();
                for (; goesOn(published, begin); published++) {
                    long sent = System.nanoTime();
                    producer.send(record).get();
                    times[published] = System.nanoTime() - sent;
                }
                return published;
            });
            answer.put("form", "sync");
            answer.set("latency_us",
                    Costs.percentiles(Arrays.copyOf(times, answer.get("events").asInt())));
            return answer;
        }
    }
}
