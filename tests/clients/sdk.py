"""Sends and reads events by the CloudEvents SDK for Python, which knows nothing of Weft."""

import json
import sys
import urllib.request
from datetime import datetime, timezone

from cloudevents.core.bindings.http import HTTPMessage, from_binary, from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

BASE = sys.argv[1]
STREAM = f"{BASE}/v1/streams/clients%2Fpython/events"
SUBSCRIPTION = f"{BASE}/topics/clients%2Fpython/eventsubscriptions/clients%2Fpull"
VERSION = "api-version=2024-06-01"
JSON = {"content-type": "application/json"}


def post(url, headers, body):
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request) as answer:
        return answer.status, json.loads(answer.read())


def event(number, **more):
    attributes = {"id": str(number), "source": "/python", "type": "t", "specversion": "1.0",
                  "time": datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=timezone.utc), **more}
    attributes.setdefault("datacontenttype", "application/json")
    return CloudEvent(attributes, {"number": number})


def settle(verb, locks, query=""):
    body = json.dumps({"lockTokens": locks}).encode()
    status, told = post(f"{SUBSCRIPTION}:{verb}?{VERSION}{query}", JSON, body)
    assert status == 200, told
    return told


def main():
    json_format = JSONFormat()
    sent = [event(1, subject='a "b" 100% caf\u00e9 \U0001f600'), event(2, flag="True"),
            event(3, datacontenttype="application/vnd.x+json; charset=utf-8")]
    for index, (one, write) in enumerate(zip(sent, [to_binary, to_structured, to_binary])):
        message = write(one, json_format)
        body = message.body if isinstance(message.body, bytes) else message.body.encode()
        status, told = post(STREAM, message.headers, body)
        assert status == 202 and told[0]["offset"] == index, told

    with urllib.request.urlopen(f"{STREAM}?from=earliest&to=latest") as answer:
        lines = answer.read().decode().splitlines()
    texts = [line[len("data: "):] for line in lines if line.startswith("data: ")]
    read = [from_structured(HTTPMessage({"content-type": "application/cloudevents+json"}, text.encode()),
                            json_format) for text in texts]
    assert len(read) == len(sent), read
    for ours, theirs in zip(sent, read):
        for name, value in ours.get_attributes().items():
            assert theirs.get_attributes()[name] == value, (name, theirs.get_attributes())
        assert theirs.get_data() == ours.get_data(), theirs.get_data()
        again = from_binary(to_binary(theirs, json_format), json_format)
        assert again.get_attributes() == theirs.get_attributes()

    status, told = post(f"{SUBSCRIPTION}:receive?{VERSION}&maxEvents=10&maxWaitTime=60", JSON, b"")
    assert status == 200 and told["value"], told
    locks = [one["brokerProperties"]["lockToken"] for one in told["value"]]
    for one in told["value"]:
        pulled = HTTPMessage({"content-type": "application/cloudevents+json"}, json.dumps(one["event"]).encode())
        assert from_structured(pulled, json_format).get_source() == "/python"
    assert settle("renewLock", locks)["failedLockTokens"] == []
    assert settle("release", locks[:1], "&releaseDelayInSeconds=0")["succeededLockTokens"] == locks[:1]
    assert settle("acknowledge", locks[1:])["failedLockTokens"] == []
    failed = settle("acknowledge", locks[:1])["failedLockTokens"]
    assert failed[0]["error"]["code"] == "LockExpired", failed
    print(f"Python SDK: {len(read)} events out and in, {len(locks)} pulled")


main()
