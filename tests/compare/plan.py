"""What is measured, how much of it, and in which order."""

from dataclasses import dataclass

from peers import Kafka, Nats
from systems import Weft

SYSTEMS = {system.name: system for system in (Weft, Nats, Kafka)}
# Publishes of these sizes.
SIZES = (1_024, 256)
RATE = 10_000


@dataclass(frozen=True)
class Amounts:
    """How much is measured: enough for a figure, or just enough to see that all works."""

    repetitions: int
    # Events of each size; slow ways end after so many seconds with fewer.
    publish: dict
    tune: int
    single: int
    sync: int
    footprint: int
    latency_seconds: int
    seconds: int
    tune_seconds: int
    kills: int


FULL = Amounts(
    repetitions=3,
    publish={1_024: 400_000, 256: 800_000},
    tune=80_000,
    single=100_000,
    sync=3_000,
    footprint=2_000_000,
    latency_seconds=8,
    seconds=10,
    tune_seconds=3,
    kills=20,
)
QUICK = Amounts(
    repetitions=1,
    publish={1_024: 30_000, 256: 30_000},
    tune=10_000,
    single=5_000,
    sync=300,
    footprint=30_000,
    latency_seconds=2,
    seconds=2,
    tune_seconds=1,
    kills=1,
)


@dataclass(frozen=True)
class Work:
    """One measurement: its name, and how a system that runs does it."""

    name: str
    # Takes the system and a function from a size to the setting that was found best.
    do: object


def tuning(system, amounts):
    """Tries each setting for each size; these are measurements too."""

    def of(size, place, setting):
        def do(running, _best):
            found = running.publish(size, amounts.tune, amounts.tune_seconds, setting)
            return {**found, "setting": setting}

        return Work(f"tune-{size}-{place}", do)

    return [of(size, n, setting) for size in SIZES for n, setting in enumerate(system.settings)]


def works(system, mode, repetition, amounts):
    """What is measured with a system in each repetition."""
    a = amounts

    def publish(size):
        return lambda s, best: s.publish(size, a.publish[size], a.seconds, best(size))

    list_of = [Work(f"publish-{size}", publish(size)) for size in SIZES]
    list_of += [
        Work("single", lambda s, _: s.single(1_024, a.single, a.seconds)),
        Work("sync", lambda s, _: s.sync(1_024, a.sync, a.seconds)),
        Work("latency", lambda s, _: s.latency(1_024, RATE, a.latency_seconds)),
    ]
    if system is not Nats:
        list_of.append(Work("joined", lambda s, _: s.joined(1_024, a.single, a.seconds)))
    if system is Weft:
        list_of.append(
            Work(
                "latency-subscription",
                lambda s, _: s.latency(1_024, RATE, a.latency_seconds, "subscription"),
            )
        )
    # Whether it syncs does not matter to a reader.
    if mode == system.modes[0]:
        list_of.append(
            Work("replay", lambda s, best: s.replay(1_024, a.publish[1_024], 20, best(1_024)))
        )
    if repetition == 1 and mode == system.modes[0]:
        list_of.append(
            Work("footprint", lambda s, best: s.footprint(1_024, a.footprint, 20, best(1_024)))
        )
    if repetition == 1 and system is Weft:
        list_of.append(Work("failover", lambda s, _: s.failover(a.kills)))
    return list_of
