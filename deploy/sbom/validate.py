"""Validates a bill of materials; see `check`."""

import json
import re
import sys
import tomllib
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]
# What a reader looks for first, and a list of crates alone does not have.
NATIVE = ["rocksdb", "lz4", "zstd"]


def main():
    text = Path(sys.argv[1]).read_text()
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, f"not valid CycloneDX 1.6: {problem}"

    bill = json.loads(text)
    assert bill["specVersion"] == "1.6", bill["specVersion"]
    components = bill["components"]
    inner = [one for outer in components for one in outer.get("components", [])]
    versions = {one["name"]: one["version"] for one in inner}
    for name in NATIVE:
        version = versions.get(name, "")
        assert re.fullmatch(r"\d+(\.\d+)+", version), f"{name} has no version: {version!r}"

    # Every crate is one of the lock file, and those of the registry have its checksum.
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    locked = {(one["name"], one["version"]): one.get("checksum") for one in lock}
    crates = [one for one in components if one["purl"].startswith("pkg:cargo/")]
    for one in crates:
        checksum = locked[one["name"], one["version"]]
        listed = [found["content"] for found in one.get("hashes", [])]
        assert listed == ([checksum] if checksum else []), f"{one['name']} has the hashes {listed}"
    names = {one["name"] for one in crates}
    for name in ["weft-broker", "weft-dispatcher", "openraft", "tokio", "rustls", "ring", "librocksdb-sys"]:
        assert name in names, f"{name} is missing"
    # What only tests is not shipped.
    for name in ["proptest", "criterion", "rcgen"]:
        assert name not in names, f"{name} is for tests only"

    # Every reference leads somewhere.
    known = {one["bom-ref"] for one in components + inner} | {bill["metadata"]["component"]["bom-ref"]}
    for one in bill["dependencies"]:
        for reference in [one["ref"], *one["dependsOn"]]:
            assert reference in known, f"{reference} is not listed"
    assert {one["ref"] for one in bill["dependencies"]} == known

    libraries = ", ".join(f"{name} {versions[name]}" for name in NATIVE)
    print(f"{len(crates)} crates, {libraries}: valid CycloneDX 1.6")


if __name__ == "__main__":
    main()
