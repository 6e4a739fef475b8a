"""An admission webhook that labels whatever it is asked about. Arguments: port, certificate, key."""

import base64
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

PATCH = [{"op": "add", "path": "/metadata/labels", "value": {"seen-by": "webhook"}}]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        patch = base64.b64encode(json.dumps(PATCH).encode()).decode()
        response = {"uid": review["request"]["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
        body = json.dumps(
            {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


port, certificate, key = sys.argv[1:]
server = HTTPServer(("", int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
