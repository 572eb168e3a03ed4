// What a measurement found: rate, times, and what processes cost.

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

final class Costs {
    /** Unit of the processor times in /proc. */
    private static final double TICKS_PER_SECOND = 100;

    private final List<String> brokers;

    Costs(List<String> brokers) {
        this.brokers = brokers;
    }

    /** Something that tells how many events there were. */
    interface Work {
        int run() throws Exception;
    }

    ObjectNode measured(int size, Work work) throws Exception {
        double before = cpuSeconds();
        long begin = System.nanoTime();
        int events = work.run();
        double seconds = (System.nanoTime() - begin) / 1e9;
        double payload = (double) events * size;
        ObjectNode answer = new ObjectMapper().createObjectNode();
        answer.put("size", size);
        answer.put("events", events);
        answer.put("seconds", seconds);
        answer.put("events_per_second", events / seconds);
        answer.put("megabytes_per_second", payload / seconds / 1e6);
        answer.put("cpu_seconds_per_gb", (cpuSeconds() - before) / (payload / 1e9));
        return answer;
    }

    private double cpuSeconds() throws Exception {
        double ticks = ticks("self");
        for (String broker : brokers) {
            ticks += ticks(broker);
        }
        return ticks / TICKS_PER_SECOND;
    }

    /** utime and stime, the 12th and 13th field behind the program's name. */
    private static double ticks(String process) throws Exception {
        String text = Files.readString(Path.of("/proc", process, "stat"));
        String[] fields = text.substring(text.lastIndexOf(") ") + 2).split(" ");
        return Long.parseLong(fields[11]) + Long.parseLong(fields[12]);
    }

    /** Of times in nanoseconds. */
    static ObjectNode percentiles(long[] times) {
        Arrays.sort(times);
        ObjectNode answer = new ObjectMapper().createObjectNode();
        String[] names = {"p50", "p95", "p99", "p999", "max"};
        double[] shares = {0.5, 0.95, 0.99, 0.999, 1};
        for (int i = 0; i < names.length; i++) {
            int place = Math.min((int) (shares[i] * times.length), times.length - 1);
            answer.put(names[i], times[place] / 1000);
        }
        return answer;
    }

    /** Makes the kernel forget what files hold. Needs root. */
    static void dropCaches() throws Exception {
        if (new ProcessBuilder("sync").start().waitFor() != 0) {
            throw new IllegalStateException("sync failed");
        }
        Files.writeString(Path.of("/proc/sys/vm/drop_caches"), "3");
    }
}
