"""A receiver of webhooks by the libraries of others: Standard Webhooks checks who sent, the CloudEvents
SDK reads what. Ends when it has read as many events in each mode."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread

from cloudevents.core.bindings.http import HTTPMessage, from_binary, from_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks import Webhook, WebhookVerificationError

PORT, WANTED, *SECRETS = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
MODES = {"/binary", "/structured", "/batch"}
read = {mode: set() for mode in MODES}
news = Condition()


def events(path, headers, body):
    message = HTTPMessage(headers, body)
    if path == "/binary":
        return [from_binary(message, JSONFormat())]
    if path == "/structured":
        return [from_structured(message, JSONFormat())]
    assert headers["content-type"].startswith("application/cloudevents-batch+json"), headers
    one = {"content-type": "application/cloudevents+json"}
    parts = [json.dumps(part).encode() for part in json.loads(body)]
    return [from_structured(HTTPMessage(one, part), JSONFormat()) for part in parts]


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_OPTIONS(self):
        assert self.headers["webhook-request-origin"] == "mesh.example", self.headers
        self.answer(200, WebHook_Allowed_Origin="mesh.example")

    def do_POST(self):
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers["content-length"]))
        for secret in SECRETS:
            Webhook(secret).verify(body, headers)
        try:
            Webhook(SECRETS[0]).verify(body + b" ", headers)
            raise AssertionError("something else has the same signature")
        except WebhookVerificationError:
            pass
        for event in events(self.path, headers, body):
            assert isinstance(event, CloudEvent) and event.get_source() == "/shop", event
            with news:
                read[self.path].add(event.get_id())
                news.notify_all()
        self.answer(204)

    def log_message(self, *_):
        pass


Thread(target=ThreadingHTTPServer(("127.0.0.1", PORT), Receiver).serve_forever, daemon=True).start()
with news:
    assert news.wait_for(lambda: all(len(ids) == WANTED for ids in read.values()), 120), read
print(f"webhooks: {WANTED} events in each of {len(MODES)} modes, all signatures checked")
