// From the moment when an event is due to the moment when a reader that follows has it.

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

final class Latency {
    /** Events of the first second are not counted. */
    private static final int WARM_UP_SECONDS = 1;
    private static final long SILENCE_MAX = 30_000_000_000L;
    /** Times the time that it should take; then what came until then is told. */
    private static final int LATE_MAX = 10;

    private final String servers;
    private final Costs costs;
    private final Main.Command command;
    private final int total;
    private final int skipped;
    private final long gap;
    private volatile boolean over;

    Latency(String servers, Costs costs, Main.Command command) {
        this.servers = servers;
        this.costs = costs;
        this.command = command;
        int rate = command.number("rate");
        this.total = rate * (WARM_UP_SECONDS + command.number("seconds"));
        this.skipped = rate * WARM_UP_SECONDS;
        this.gap = 1_000_000_000L / rate;
    }

    ObjectNode run() throws Exception {
        Map<String, Object> settings = Replay.settings(servers);
        settings.put("fetch.min.bytes", 1);
        settings.put("max.poll.records", 10_000);
        List<TopicPartition> all = List.of(new TopicPartition(command.text("stream"), 0));
        long[] times = new long[total - skipped];
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings)) {
            consumer.assign(all);
            consumer.seekToBeginning(all);
            consumer.poll(Duration.ofMillis(500));
            ObjectNode answer = costs.measured(command.number("size"), () -> {
                long start = System.nanoTime() + 500_000_000L;
                AtomicReference<Exception> failure = new AtomicReference<>();
                Thread publishing = new Thread(() -> publish(start, failure));
                publishing.start();
                int read = read(consumer, start, times, failure);
                over = true;
                publishing.join();
                return read;
            });
            int counted = answer.get("events").asInt() - skipped;
            if (counted <= 0) {
                throw new IllegalStateException("no event came after the warm-up");
            }
            answer.put("rate", command.number("rate"));
            answer.put("linger_ms", command.number("linger"));
            answer.put("events", counted);
            answer.set("latency_us", Costs.percentiles(Arrays.copyOf(times, counted)));
            return answer;
        }
    }

    private void publish(long start, AtomicReference<Exception> failure) {
        Map<String, Object> settings = Publish.settings(servers);
        settings.put("linger.ms", command.number("linger"));
        byte[] payload = Publish.payload(command.number("size"));
        var record = new ProducerRecord<byte[], byte[]>(command.text("stream"), payload);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            producer.partitionsFor(record.topic());
            for (int number = 0; number < total && !over && failure.get() == null; number++) {
                long due = start + number * gap;
                for (long wait = due - System.nanoTime(); wait > 0;
                        wait = due - System.nanoTime()) {
                    LockSupport.parkNanos(wait);
                }
                producer.send(record, (metadata, error) -> {
                    if (error != null) {
                        failure.set(error);
                    }
                });
            }
        } catch (RuntimeException error) {
            failure.set(error);
        }
    }

    /** Answers how many events came. */
    private int read(KafkaConsumer<byte[], byte[]> consumer, long start, long[] times,
            AtomicReference<Exception> failure) throws Exception {
        int number = 0;
        long last = System.nanoTime();
        long now = last;
        while (number < total && now - start < LATE_MAX * total * gap) {
            for (var ignored : consumer.poll(Duration.ofMillis(100))) {
                last = System.nanoTime();
                if (number >= skipped) {
                    times[number - skipped] = last - (start + number * gap);
                }
                number++;
            }
            if (failure.get() != null) {
                throw failure.get();
            }
            now = System.nanoTime();
            if (now - last > SILENCE_MAX) {
                throw new IllegalStateException(number + " of " + total + " events came");
            }
        }
        return number;
    }
}
