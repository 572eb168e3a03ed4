"""Processes of a comparison: each is started, watched and ended by its id."""

import json
import random
import socket
import subprocess
import time

START_MAX = 60
STOP_MAX = 20
# Below the range from which Linux picks ports for outgoing connections.
PORTS = (20_000, 32_000)


class Failed(Exception):
    """A measurement that did not come about, with the reason."""


class Ended(Failed):
    """A process that is needed for all that follows has ended."""


def free_ports(count):
    """Ports that nobody uses at this moment."""
    held = []
    for _ in range(1_000):
        if len(held) == count:
            break
        held_socket = socket.socket()
        try:
            held_socket.bind(("127.0.0.1", random.randrange(*PORTS)))
            held.append(held_socket)
        except OSError:
            held_socket.close()
    ports = [held_socket.getsockname()[1] for held_socket in held]
    for held_socket in held:
        held_socket.close()
    if len(ports) < count:
        raise Failed(f"there are no {count} free ports")
    return ports


def run(arguments, **options):
    """Runs a command to its end and answers its output."""
    done = subprocess.run(
        [str(argument) for argument in arguments], stdout=subprocess.PIPE, text=True, **options
    )
    if done.returncode != 0:
        raise Failed(f"{arguments[0]} ended with {done.returncode}: {done.stdout[-500:]}")
    return done.stdout


class Server:
    """One server process; what it says goes to a file."""

    def __init__(self, arguments, log, env=None):
        self.log = log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
            )

    @property
    def pid(self):
        return self.process.pid

    def wait_for_port(self, port):
        deadline = time.monotonic() + START_MAX
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"a server ended; see {self.log}:\n{self.end_of_log()}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise Failed(f"no server listens on port {port} after {START_MAX} s")

    def end_of_log(self):
        return self.log.read_text(errors="replace")[-1_500:]

    def ask_to_stop(self):
        self.process.terminate()

    def wait(self):
        try:
            self.process.wait(STOP_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Session:
    """A client process that takes a command a line and answers each with a line."""

    def __init__(self, arguments):
        self.process = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **command):
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Ended("the client has ended") from None
        # The client bounds each command itself.
        line = self.process.stdout.readline()
        if not line:
            raise Ended("the client ended without an answer")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{command['do']}: {answer['error']}")
        return answer

    def end(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            # It has ended already, and whoever asked it was told.
            pass
        try:
            self.process.wait(STOP_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def number_in(pid, file, name):
    """The number behind a name in a file of the kernel about a process."""
    with open(f"/proc/{pid}/{file}") as lines:
        for line in lines:
            if line.startswith(name):
                return int(line.split()[1])
    raise Failed(f"/proc/{pid}/{file} has no {name}")


def memory_max(pids):
    """The most memory that each process has had at once, in bytes."""
    return [number_in(pid, "status", "VmHWM:") * 1024 for pid in pids]


def written(pids):
    """Bytes that each process has had written to disks."""
    return [number_in(pid, "io", "write_bytes:") for pid in pids]


def written_when_quiet(pids, quiet=2, quiet_max=60, little=1 << 20):
    """The same, after next to nothing was written for a while."""
    deadline = time.monotonic() + quiet_max
    last, since = written(pids), time.monotonic()
    while time.monotonic() - since < quiet and time.monotonic() < deadline:
        time.sleep(0.25)
        now = written(pids)
        if sum(now) - sum(last) > little:
            last, since = now, time.monotonic()
    return last
