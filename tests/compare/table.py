"""Tables for people, out of a results file."""

import json
from statistics import median

from figures import Figures, milliseconds
from goals import print_goals
from process import Failed

VARIANTS = {
    ("weft", "fsync"): "Weft, `durable`",
    ("nats", "default"): "NATS JetStream R3",
    ("nats", "fsync"): "NATS JetStream R3, `sync_interval: always`",
    ("kafka", "default"): "Kafka, acks=all",
    ("kafka", "fsync"): "Kafka, acks=all, `flush.messages=1`",
}


def load(path):
    """What a results file holds; nothing when there is none."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []


def best_setting(results, system, mode, size):
    """The fastest of the settings that were tried."""
    tries = [r for r in results if r["system"] == system and r["mode"] == mode
             and r["work"].startswith(f"tune-{size}-")]
    if not tries:
        raise Failed(f"no setting of {system} was tried for events of {size} bytes")
    return max(tries, key=lambda r: r["found"]["events_per_second"])["found"]["setting"]


def way(found):
    """How events travelled, as far as a system has a choice."""
    form, parts = found.get("form"), []
    if "publishers" in found:
        parts.append(f"calls of {found['batch']}, {found['window']:,} events on the way")
        if found["publishers"] > 1:
            parts.append(f"{found['publishers']} publishers")
    elif form == "async":
        parts.append(f"async, {found['window']:,} on the way")
    elif form == "fast":
        parts.append(f"fast ingest, flow {found['batch']}, {found['window']} acks")
    elif form == "atomic":
        parts.append(f"atomic batches of {found['batch']:,}, {found['window']} at once")
    elif form in ("ordered", "direct"):
        parts.append(f"{form}, batches of {found['batch']:,}")
    elif form in ("batched", "joined"):
        parts.append(f"linger {found['linger_ms']} ms, batches of {found['batch_bytes'] >> 10} KiB")
    elif "cold" in found and "batch" in found:
        parts.append(f"fetches of {found['batch'] >> 10:,} KiB")
    return "; ".join(parts)


def spread(values, show):
    low, high = show(min(values)), show(max(values))
    return show(median(values)) + (f" ({low} to {high})" if len(values) > 1 else "")


def rates(results, work, title):
    print(f"\n### {title}\n")
    print("| | how | events/s | MB/s | CPU s/GB | Weft is | fdatasync p50 / p99, ms "
          "| disk, MB/s |\n|---|---|---|---|---|---|---|---|")
    weft = Figures(results, ("weft", "fsync"), work)
    for variant, label in VARIANTS.items():
        figures = Figures(results, variant, work)
        if not figures:
            continue
        rate = figures.of("events_per_second")
        all_rates = spread(figures.all("found", "events_per_second"), lambda v: f"{v:,.0f}")
        times = weft and variant[0] != "weft" and f"{weft.of('events_per_second') / rate:.2f}x"
        print(f"| {label} | {way(figures.first())} | {all_rates} "
              f"| {figures.of('megabytes_per_second'):,.1f} "
              f"| {figures.of('cpu_seconds_per_gb'):.1f} | {times or ''} | {figures.disk()} |")


def latencies(results, works, title):
    print(f"\n### {title}\n")
    print("| | p50, ms | p99, ms | p99.9, ms | max, ms | fdatasync p50 / p99, ms | disk, MB/s |\n"
          "|---|---|---|---|---|---|---|")
    for work, suffix in works:
        for variant, label in VARIANTS.items():
            figures = Figures(results, variant, work)
            if figures:
                cells = (milliseconds(figures.of("latency_us", p))
                         for p in ("p50", "p99", "p999", "max"))
                print(f"| {label}{suffix} | {' | '.join(cells)} | {figures.disk()} |")


def footprints(results):
    print("\n### Memory and disk\n")
    print("| | events of 1 KiB | most memory of each broker, MiB "
          "| bytes written per byte of payload, each broker |\n|---|---|---|---|")
    for variant, label in VARIANTS.items():
        figures = Figures(results, variant, "footprint")
        if figures:
            found = figures.first()
            memory = ", ".join(f"{b / (1 << 20):,.0f}" for b in found["memory_max_bytes"])
            ratios = ", ".join(f"{r:.2f}" for r in found["written_per_payload_byte"])
            print(f"| {label} | {found['events']:,} | {memory} | {ratios} |")


def failovers(results):
    figures = Figures(results, ("weft", "fsync"), "failover")
    if not figures:
        return
    found = figures.first()
    print(f"\n### The leader is killed, {found['kills']} times\n")
    print("| | p50, s | p95, s | max, s |\n|---|---|---|---|")
    for field, label in (("resumed_us", "until a publish is acknowledged"),
                         ("caught_up_us", "until the killed broker has all again")):
        cells = (f"{found[field][p] / 1e6:.2f}" for p in ("p50", "p95", "max"))
        print(f"| {label} | {' | '.join(cells)} |")


def tried(results):
    print("\n### Settings that were tried\n")
    print("| | size | how | events/s |\n|---|---|---|---|")
    for variant, label in VARIANTS.items():
        for result in results:
            mine = (result["system"], result["mode"]) == variant
            if mine and result["work"].startswith("tune-"):
                found = result["found"]
                print(f"| {label} | {found['size']} | {way(found)} "
                      f"| {found['events_per_second']:,.0f} |")


def print_tables(results):
    if not results:
        raise SystemExit("there are no results")
    disk = results[0]["disk"]
    machine = disk["machine"]
    versions = sorted({f"{r['system']}: {r['version']}" for r in results})
    repetitions = max(r["repetition"] for r in results)
    print(f"Machine: {machine['processors']} cores, {machine['processor']}, Linux "
          f"{machine['kernel']}. Weft's commit `{disk['commit']}`. {'; '.join(versions)}. "
          f"{results[0]['at']} to {results[-1]['at']}. Medians of {repetitions}, in brackets the "
          "slowest and the fastest.")
    if any(r["quick"] for r in results):
        print("\n**From a quick run: these figures measure nothing.**")
    rates(results, "publish-1024", "Publish, 1 KiB")
    rates(results, "publish-256", "Publish, 256 B")
    rates(results, "single", "Single publishes, 1 KiB, 256 on the way")
    rates(results, "joined", "The same with events that the client library joins")
    latencies(results, [("sync", "")], "One publish at a time, 1 KiB")
    latencies(results, [("latency", ""), ("latency-subscription", ", durable subscription")],
              "From publisher to reader at 10,000 events/s, 1 KiB")
    rates(results, "replay", "Replay by one reader, 1 KiB, cold")
    footprints(results)
    failovers(results)
    tried(results)
    print_goals(results)
