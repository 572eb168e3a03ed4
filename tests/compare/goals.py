"""The goals, and how the figures compare with them."""

from figures import Figures, milliseconds

MEBIBYTE = 1 << 20


def print_goals(results):
    def weft(work):
        return Figures(results, ("weft", "fsync"), work)

    def ratio(work, peer, mode):
        mine, theirs = weft(work), Figures(results, (peer, mode), work)
        if mine and theirs:
            return mine.of("events_per_second") / theirs.of("events_per_second")
        return None

    lines = []

    def add(work, goal, figure, met):
        lines.append(f"| {work} | {goal} | {figure} | {'yes' if met else '**no**'} |")

    def at_least(work, peer, mode, least):
        found = ratio(work, peer, mode)
        if found is not None:
            what = f"{work}, beside {peer}{' with fsync' if mode == 'fsync' else ''}"
            add(what, f">= {least}x", f"{found:.2f}x", found >= least)

    for work in ("publish-1024", "publish-256"):
        at_least(work, "nats", "default", 3)
        at_least(work, "kafka", "default", 1.3)
        at_least(work, "nats", "fsync", 5)
        at_least(work, "kafka", "fsync", 5)
    at_least("single", "nats", "default", 1.5)
    at_least("replay", "nats", "default", 3)
    at_least("replay", "kafka", "default", 1)
    if weft("sync"):
        most = 3 * weft("sync").of("fdatasync_us", "p50") + 400
        p50 = weft("sync").of("latency_us", "p50")
        add("one at a time, p50", f"<= {milliseconds(most)} ms", f"{milliseconds(p50)} ms",
            p50 <= most)
    if weft("latency"):
        for p, most in (("p50", 1_500), ("p99", 5_000)):
            found = weft("latency").of("latency_us", p)
            add(f"publisher to reader, {p}", f"<= {milliseconds(most)} ms",
                f"{milliseconds(found)} ms", found <= most)
    if weft("failover"):
        for p, most in (("p95", 3), ("max", 6)):
            found = weft("failover").of("resumed_us", p) / 1e6
            add(f"leader killed, {p}", f"<= {most} s", f"{found:.2f} s", found <= most)
    if weft("footprint"):
        found = weft("footprint").first()
        written, memory = max(found["written_per_payload_byte"]), max(found["memory_max_bytes"])
        add("written per byte of payload", "<= 2.2", f"{written:.2f}", written <= 2.2)
        add("memory of a broker", "<= 1 GiB", f"{memory / MEBIBYTE:,.0f} MiB",
            memory <= 1024 * MEBIBYTE)
    print("\n### Goals\n\n| work | goal | found | met |\n|---|---|---|---|")
    print("\n".join(lines))
