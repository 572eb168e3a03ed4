"""NATS JetStream and Apache Kafka: their settings are their defaults unless a line says why not."""

import base64
import os
import uuid

from process import Server, run
from systems import HERE, NODES, Peer


class Nats(Peer):
    """R3 streams in files. `default` syncs files every two minutes, `fsync` before it acknowledges."""

    name = "nats"
    modes = ["default", "fsync"]
    settings = [
        {"form": "async", "window": 1_024},
        {"form": "async", "window": 4_096},
        {"form": "async", "window": 16_384},
        {"form": "fast", "batch": 100, "window": 2},
        {"form": "fast", "batch": 500, "window": 4},
        {"form": "fast", "batch": 2_000, "window": 4},
        {"form": "fast", "batch": 10_000, "window": 4},
        {"form": "atomic", "batch": 1_000, "window": 4},
    ]
    single_setting = {"form": "async", "window": 256}
    latencies = [{}]
    reads = [
        {"form": "ordered", "batch": 500},
        {"form": "ordered", "batch": 5_000},
        {"form": "direct", "batch": 1_000},
    ]

    def prepare(self):
        for node in range(NODES):
            routes = [f"nats://127.0.0.1:{port}" for port in self.ports[NODES:]]
            sync = "  sync_interval: always\n" if self.mode == "fsync" else ""
            text = (
                f"server_name: n{node}\n"
                f"listen: 127.0.0.1:{self.ports[node]}\n"
                "jetstream {\n"
                f'  store_dir: "{self.folder}/n{node}"\n'
                "  max_file_store: 20GB\n"
                f"{sync}"
                "}\n"
                "cluster {\n"
                "  name: compare\n"
                f"  listen: 127.0.0.1:{self.ports[NODES + node]}\n"
                f"  routes: {routes}\n"
                "}\n"
            )
            (self.folder / f"n{node}.conf").write_text(text)

    def server(self, node):
        config = self.folder / f"n{node}.conf"
        return Server([self.built["nats-server"], "-c", config], self.folder / f"n{node}.log")

    def client(self, pids):
        servers = ",".join(f"nats://127.0.0.1:{port}" for port in self.ports[:NODES])
        return [self.built["nats-client"], "-servers", servers, "-pids", pids]

    def forget(self, stream):
        # It keeps blocks that it wrote or read in memory of its own.
        self.halt()
        self.launch()
        self.session.ask(do="wait", stream=stream)


class Kafka(Peer):
    """Three brokers that are controllers too; acknowledged events are on all in-sync replicas.

    `default` leaves syncing to the kernel, `fsync` syncs each append before it is acknowledged;
    that is a matter of the topic.
    """

    modes_share_servers = True

    name = "kafka"
    modes = ["default", "fsync"]
    settings = [
        {"form": "batched", "linger": 5, "batch": 128 << 10},
        {"form": "batched", "linger": 10, "batch": 256 << 10},
        {"form": "batched", "linger": 20, "batch": 1 << 20},
        {"form": "batched", "linger": 50, "batch": 2 << 20},
        {"form": "batched", "linger": 100, "batch": 4 << 20},
    ]
    single_setting = {"form": "single", "window": 256}
    latencies = [{"linger": 0}, {"linger": 5}]
    # Bytes that a reader asks for at once.
    reads = [{"batch": 1 << 20}, {"batch": 8 << 20}]
    # As Kafka's own start script has it, with a heap that leaves the page cache its room.
    java = ["java", "-Xms1g", "-Xmx1g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]
    java += ["-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"]

    def prepare(self):
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22]
        voters = [f"{n + 1}@127.0.0.1:{self.ports[NODES + n]}" for n in range(NODES)]
        for node in range(NODES):
            lines = [
                "process.roles=broker,controller",
                f"node.id={node + 1}",
                f"controller.quorum.voters={','.join(voters)}",
                "controller.listener.names=CONTROLLER",
                "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
                f"listeners=PLAINTEXT://127.0.0.1:{self.ports[node]},"
                f"CONTROLLER://127.0.0.1:{self.ports[NODES + node]}",
                f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.ports[node]}",
                f"log.dirs={self.folder}/k{node}",
                "min.insync.replicas=2",
                "offsets.topic.replication.factor=3",
                # Batches of a megabyte and their headers, as one of the settings has them.
                "message.max.bytes=8388608",
                "replica.fetch.max.bytes=8388608",
                # Files of deleted topics go at once, for the disk is shared by all that follows.
                "log.segment.delete.delay.ms=1000",
            ]
            config = self.folder / f"k{node}.properties"
            config.write_text("\n".join(lines) + "\n")
            tool = [*self.command([]), "kafka.tools.StorageTool", "format"]
            run([*tool, "-t", cluster, "-c", config])

    def start(self):
        super().start()
        # The code of brokers and client is compiled while it runs.
        large = self.settings[2]
        for _ in range(2):
            self.publish(1_024, 100 * self.warm_up, 10, large)
            self.publish(1_024, 100 * self.warm_up, 10, self.settings[0])
        self.single(1_024, self.warm_up, 5)
        self.sync(1_024, self.warm_up, 5)
        self.latency(1_024, 2_000, 2)
        self.replay(1_024, 100 * self.warm_up, 10, large)

    def joined(self, size, events, seconds):
        setting = {"form": "joined", "linger": 0, "batch": 16 << 10, "window": 256}
        return self.publish(size, events, seconds, setting)

    def command(self, options):
        log = f"-Dlog4j2.configurationFile={HERE / 'kafka' / 'log4j2.properties'}"
        classes = f"{self.built['kafka-classes']}{os.pathsep}{self.built['kafka-libraries']}/*"
        return [*(options or ["java"]), log, "-cp", classes]

    def server(self, node):
        config = self.folder / f"k{node}.properties"
        arguments = [*self.command(self.java), "kafka.Kafka", config]
        return Server(arguments, self.folder / f"k{node}.log")

    def client(self, pids):
        servers = ",".join(f"127.0.0.1:{port}" for port in self.ports[:NODES])
        return [*self.command(self.java), "Main", servers, pids]
