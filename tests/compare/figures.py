"""Medians over the repetitions of a measurement."""

from statistics import median


class Figures:
    """All repetitions of one measurement."""

    def __init__(self, results, variant, work):
        self.results = [r for r in results if (r["system"], r["mode"]) == variant
                        and r["work"] == work]

    def __bool__(self):
        return bool(self.results)

    def all(self, *path):
        values = []
        for result in self.results:
            for step in path:
                result = result.get(step) if isinstance(result, dict) else None
            if result is not None:
                values.append(result)
        return values

    def of(self, *path):
        values = self.all("found", *path)
        return median(values) if values else None

    def first(self):
        return self.results[0]["found"]

    def disk(self):
        before = [self.all("disk", "fdatasync_us", p) for p in ("p50", "p99")]
        p50, p99 = (milliseconds(median(values)) for values in before)
        rate = median(self.all("disk", "sequential_megabytes_per_second"))
        return f"{p50} / {p99} | {rate:,.0f}"


def milliseconds(micros):
    if micros is None:
        return "-"
    value = micros / 1_000
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
