"""Publishes, reads and takes events by stubs that grpcio-tools makes from proto/; health and reflection
by the libraries of gRPC."""

import importlib
import json
import queue
import sys
import tempfile
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

ADDRESS = sys.argv[1].removeprefix("http://")
PROTO = Path(__file__).resolve().parent.parent.parent / "proto"
SERVICES = ["Access", "Catalog", "Cluster", "Publish", "Read", "Subscribe"]
EVENTS = 200


def stubs(folder):
    """Makes the stubs and loads those that are needed."""
    files = [str(file.relative_to(PROTO)) for file in sorted(PROTO.glob("weft/v1/*.proto"))]
    files.append("io/cloudevents/v1/cloudevents.proto")
    included = Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO}", f"-I{included}", f"--python_out={folder}",
                 f"--grpc_python_out={folder}", *files]
    assert protoc.main(arguments) == 0, "the stubs cannot be made"
    # `io` is a package of Python itself: what is made for CloudEvents goes by another name.
    sys.path.insert(0, folder)
    import io
    io.__path__ = [str(Path(folder) / "io")]
    names = ["catalog", "publish", "read", "subscribe"]
    return [(importlib.import_module(f"weft.v1.{name}_pb2"),
             importlib.import_module(f"weft.v1.{name}_pb2_grpc")) for name in names]


def put(catalog, stub, kind, name, spec):
    resource = catalog.Resource(kind=kind, name=name, spec=json.dumps(spec).encode())
    stub.Put(catalog.PutRequest(resource=resource), timeout=30)


def take(subscribe, channel, all_events):
    """A member that acknowledges each event; gives one back first, and keeps count."""
    frames = queue.SimpleQueue()
    stub = subscribe[1].SubscribeStub(channel)
    answers = stub.Subscribe(iter(frames.get, None), timeout=120)
    request, settle = subscribe[0].SubscribeRequest, subscribe[0].Settle
    frames.put(request(open={"subscription": "grpc-work", "member": "python"}))
    frames.put(request(credit={"events": 50, "bytes": 1 << 20}))
    seen, tag, gave_back, unanswered = {}, 0, False, set()
    for answer in answers:
        kind = answer.WhichOneof("frame")
        if kind == "settled":
            assert not answer.settled.refused, answer
            unanswered.discard(answer.settled.tag)
        if kind == "delivery":
            delivery = answer.delivery
            for place, event in enumerate(delivery.batch.events):
                attempt = delivery.attempts[place] if delivery.attempts else 1
                lease = {"partition": delivery.batch.partition, "epoch": delivery.epoch,
                         "first": delivery.first_lease + place, "last": delivery.first_lease + place}
                tag += 1
                unanswered.add(tag)
                if not gave_back:
                    gave_back = event.id
                    nack = {"leases": lease, "delay_ms": 0, "reason": "not now"}
                    frames.put(request(settle=settle(tag=tag, nacks=[nack])))
                else:
                    assert event.id not in seen, "an event came twice"
                    seen[event.id] = attempt
                    frames.put(request(settle=settle(tag=tag, acks=[lease])))
            frames.put(request(credit={"events": len(delivery.batch.events), "bytes": 1 << 16}))
        if len(seen) == all_events and not unanswered:
            break
    frames.put(None)
    answers.cancel()
    assert seen[gave_back] == 2, "what was given back comes as the second delivery"


def main():
    channel = grpc.insecure_channel(ADDRESS)
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    found = ProtoReflectionDescriptorDatabase(channel).get_services()
    for service in SERVICES:
        assert f"weft.v1.{service}" in found, found

    with tempfile.TemporaryDirectory() as folder:
        catalog, publish, read, subscribe = stubs(folder)
        stub = catalog[1].CatalogStub(channel)
        put(catalog[0], stub, "Stream", "grpc", {"partitions": 2})
        put(catalog[0], stub, "Subscription", "grpc-work",
            {"stream": "grpc", "mode": "key-shared", "start": "earliest"})

        events = [{"id": str(number), "source": "/python", "spec_version": "1.0", "type": "t",
                   "attributes": {"subject": {"ce_string": f"key/{number % 7}"}},
                   "text_data": f"caf\u00e9 {number}"} for number in range(EVENTS)]
        publisher = publish[1].PublishStub(channel)
        results = publisher.Publish(publish[0].PublishRequest(stream="grpc", events=events), timeout=30).results
        assert all(result.WhichOneof("outcome") == "receipt" for result in results)
        try:
            publisher.Publish(publish[0].PublishRequest(stream="none", events=events[:1]), timeout=30)
            raise AssertionError("there is no such stream")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error

        request = read[0].ReadRequest(stream="grpc", to={"latest": {}})
        batches = [one.batch for one in read[1].ReadStub(channel).Read(request, timeout=60)
                   if one.WhichOneof("frame") == "batch"]
        texts = {event.id: event.text_data for batch in batches for event in batch.events}
        assert texts == {event["id"]: event["text_data"] for event in events}

        take(subscribe, channel, EVENTS)
    print(f"grpcio: {EVENTS} events out and in, one given back, each acknowledged")


main()
