"""The systems under comparison: how each is started, and how each work is done with it."""

import json
import shutil
import tempfile
from pathlib import Path

from process import (
    Server,
    Session,
    free_ports,
    memory_max,
    run,
    written,
    written_when_quiet,
)

HERE = Path(__file__).parent
NODES = 3


class Weft:
    """`weft bench` makes a cluster for each measurement and removes it."""

    name = "weft"
    modes = ["fsync"]
    # Events in a call, events on their way.
    modes_share_servers = True
    settings = [
        {"batch": 128, "window": 8_192},
        {"batch": 512, "window": 32_768},
        {"batch": 1_024, "window": 32_768},
    ]

    def __init__(self, built, mode, folder):
        self.program, self.folder = built["weft"], folder

    def start(self):
        pass

    def stop(self):
        pass

    def bench(self, *arguments):
        text = run([self.program, "bench", *arguments, "--dir", self.folder, "-o", "json"])
        return json.loads(text)

    @staticmethod
    def load(size, events, setting):
        return ["--size", size, "--events", events, *options(setting)]

    def bench_publish(self, size, events, setting, *more):
        return self.bench("publish", *self.load(size, events, setting), *more)

    def publish(self, size, events, _seconds, setting):
        return self.bench_publish(size, events, setting)

    def single(self, size, events, _seconds):
        # The broker remembers so many batches of a publisher that eight make 256 on their way.
        setting = {"batch": 1, "window": 256, "publishers": 8, "form": "single"}
        return self.bench_publish(size, events, setting)

    def joined(self, size, events, _seconds):
        return self.bench_publish(size, events, {"batch": 1, "window": 256})

    def sync(self, size, events, _seconds):
        return self.bench_publish(size, events, {"batch": 1, "window": 1})

    def latency(self, size, rate, seconds, via="follow"):
        timing = ["--size", size, "--rate", rate, "--seconds", seconds]
        return self.bench("latency", *timing, "--via", via)

    def replay(self, size, events, _seconds, setting):
        return self.bench("replay", *self.load(size, events, setting), "--cold")

    def footprint(self, size, events, _seconds, setting):
        return self.bench_publish(size, events, setting, "--footprint")

    def failover(self, kills):
        return self.bench("failover", "--kills", kills)


def options(setting):
    return [part for name, value in setting.items() for part in (f"--{name}", value)]


class Peer:
    """Three servers of one kind, and a client that does what it is told."""

    # Whether one start of the servers serves all modes.
    modes_share_servers = False
    # Events of a warm-up, where there is one.
    warm_up = 3_000

    def __init__(self, built, mode, folder):
        self.built, self.mode, self.parent = built, mode, folder
        self.folder, self.servers, self.session, self.streams = None, [], None, 0

    def start(self):
        self.parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=self.parent))
        self.ports = free_ports(2 * NODES)
        self.prepare()
        self.launch()

    def launch(self):
        self.servers = [self.server(node) for node in range(NODES)]
        for node, server in enumerate(self.servers):
            server.wait_for_port(self.ports[node])
        pids = ",".join(str(pid) for pid in self.pids())
        self.session = Session(self.client(pids))

    def halt(self):
        if self.session:
            self.session.end()
        for server in self.servers:
            server.ask_to_stop()
        for server in self.servers:
            server.wait()
        self.session, self.servers = None, []

    def stop(self):
        self.halt()
        if self.folder:
            shutil.rmtree(self.folder)

    def pids(self):
        return [server.pid for server in self.servers]

    def prepare(self):
        """Writes what the servers need before they start."""

    def stream(self):
        self.streams += 1
        name = f"compare-{self.streams}"
        self.session.ask(do="create", stream=name, fsync=self.mode == "fsync")
        return name

    def filled(self, size, events, seconds, setting):
        """A stream with events, and what publishing them found."""
        name = self.stream()
        command = {"size": size, "events": events, "seconds_max": seconds, **setting}
        return name, self.session.ask(do="publish", stream=name, **command)

    def publish(self, size, events, seconds, setting):
        name, found = self.filled(size, events, seconds, setting)
        self.session.ask(do="delete", stream=name)
        return found

    def single(self, size, events, seconds):
        return self.publish(size, events, seconds, self.single_setting)

    def sync(self, size, events, seconds):
        return self.publish(size, events, seconds, {"form": "sync"})

    def latency(self, size, rate, seconds):
        """The best of its settings."""
        tries = []
        for setting in self.latencies:
            name = self.stream()
            timing = {"size": size, "rate": rate, "seconds": seconds}
            tries.append(self.session.ask(do="latency", stream=name, **timing, **setting))
            self.session.ask(do="delete", stream=name)
        return {**min(tries, key=lambda found: found["latency_us"]["p50"]), "tries": tries}

    def replay(self, size, events, seconds, setting):
        """The best of its ways to read, each cold."""
        name, published = self.filled(size, events, seconds, setting)
        tries = []
        for way in self.reads:
            self.forget(name)
            command = {"size": size, "events": published["events"], "cold": True, **way}
            tries.append(self.session.ask(do="replay", stream=name, **command))
        self.session.ask(do="delete", stream=name)
        best = max(tries, key=lambda found: found["events_per_second"])
        return {**best, "tries": tries}

    def forget(self, _stream):
        """Empties what the servers themselves keep in memory."""

    def footprint(self, size, events, seconds, setting):
        before = written(self.pids())
        name, found = self.filled(size, events, seconds, setting)
        memory = memory_max(self.pids())
        run(["sync"])
        after = written_when_quiet(self.pids())
        payload = found["events"] * size
        ratios = [(now - then) / payload for now, then in zip(after, before)]
        self.session.ask(do="delete", stream=name)
        return {**found, "memory_max_bytes": memory, "written_per_payload_byte": ratios}
