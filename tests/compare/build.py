"""Builds everything: Weft from this repository, the peers from the registries of their languages."""

import os
import re
from pathlib import Path

from process import Failed, run

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def commit():
    return run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT).strip()


def build(parts, weft=None):
    """Builds the named systems; answers where programs are, by name, and versions."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
    place = target / "compare"
    place.mkdir(parents=True, exist_ok=True)
    built, versions = {}, {}
    # Also without Weft among the parts: it measures the disk for all.
    built["weft"] = Path(weft).absolute() if weft else build_weft(target)
    versions["weft"] = run([built["weft"], "--version"]).split()[-1]
    if "nats" in parts:
        build_nats(place, built, versions)
    if "kafka" in parts:
        build_kafka(place, built, versions)
    return built, versions


def build_weft(target):
    environment = {**os.environ, "WEFT_COMMIT": commit()}
    run([ROOT / "deploy/build/run", "cargo", "build", "--release"], cwd=ROOT, env=environment)
    return target / "release" / "weft"


def build_nats(place, built, versions):
    source = HERE / "nats"
    built["nats-server"], built["nats-client"] = place / "nats-server", place / "nats-client"
    server = "github.com/nats-io/nats-server/v2"
    run(["go", "build", "-o", built["nats-server"], server], cwd=source)
    run(["go", "build", "-o", built["nats-client"], "."], cwd=source)
    listed = run(["go", "list", "-m", "all"], cwd=source)
    wanted = {server, "github.com/nats-io/nats.go", "github.com/synadia-io/orbit.go/jetstreamext"}
    of = dict(line.split() for line in listed.splitlines() if line.split()[0] in wanted)
    versions["nats"] = ", ".join(
        f"{name.removesuffix('/v2').rsplit('/', 1)[-1]} {of[name]}" for name in sorted(of)
    )


def build_kafka(place, built, versions):
    source = HERE / "kafka"
    libraries, classes = place / "kafka-libraries", place / "kafka-classes"
    built["kafka-libraries"], built["kafka-classes"] = libraries, classes
    fetch = ["mvn", "-q", "-B", "-f", source / "pom.xml", "dependency:copy-dependencies"]
    run([*fetch, f"-DoutputDirectory={libraries}", f"-DbuildDirectory={place / 'maven'}"])
    files = sorted((source / "src").glob("*.java"))
    run(["javac", "-d", classes, "-cp", f"{libraries}/*", *files])
    jars = [re.fullmatch(r"kafka-clients-(.*)\.jar", jar.name) for jar in libraries.iterdir()]
    found = [jar.group(1) for jar in jars if jar]
    if len(found) != 1:
        raise Failed(f"{libraries} holds {len(found)} versions of Kafka: remove it and try again")
    java = run(["java", "--version"]).splitlines()[0]
    versions["kafka"] = f"Kafka {found[0]}, {java}"
