#!/usr/bin/env python3
"""A Weft function in Python's standard library: greets whoever an event names.

The dispatcher starts this program, hands it a listening socket as file descriptor 3
(LISTEN_FDS, as systemd does) and sends each event as an HTTP request. What is printed shows in
`weft function logs`.
"""

import json
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    # Connections are kept: the next event comes on the same one.
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            name = json.loads(body)["name"]
        except (ValueError, KeyError, TypeError):
            # 422: a repetition would not help; the event waits until somebody looks at it.
            return self.answer(422, b"the payload needs a name\n")
        print("greeting", name, flush=True)
        reply = json.dumps({"text": f"Hello, {name}!"}).encode()
        # An answer with these headers is a reply event, stored before the cause is acknowledged.
        # Its id and source are derived from the cause when they are left out.
        self.answer(
            200,
            reply,
            {"ce-specversion": "1.0", "ce-type": "greeting", "content-type": "application/json"},
        )

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
# SIGTERM: finish what was begun, then end. The dispatcher waits for it.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
