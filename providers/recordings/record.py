#!/usr/bin/env python3
"""Records what the vendors' own clients send, as the tests of the templates replay it.

    providers/recordings/record            all of them, in an environment of its own
    providers/recordings/record stripe     one

Every client runs with the variables that `claviger run` would set, in which placeholders stand. Its connections are led to
a listener of this process, which terminates TLS under a throw-away authority, writes down the first request that names one
of the template's hosts, and answers with an empty object. Nothing leaves the machine.
"""

import fnmatch
import importlib.metadata
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import tomllib

import trustme

HERE = pathlib.Path(__file__).resolve().parent
TEMPLATES = HERE.parent / "templates"

# What differs from one machine or one run to the next, and says nothing of where a credential stands.
VOLATILE = {
    "content-length",
    "idempotency-key",
    "npm-command",
    "npm-session",
    "request-id",
    "x-amzn-trace-id",
    "x-client-request-id",
    "x-deepgram-session-id",
    "x-idempotency-key",
    "x-ms-client-request-id",
    "x-request-id",
    "x-stripe-client-telemetry",
    "x-stripe-client-user-agent",
    "x-transaction-id",
}
VOLATILE_PREFIXES = ("x-stainless-", "x-goog-api-client", "x-fern-")

# A placeholder, in the clear, as a UUID, or within Basic.
MARKS = ("claviger", "c1a519e4-0000-4000-8000-", "basic ")


class Recorder:
    """A listener for TLS of any name."""

    def __init__(self, directory):
        self.authority = trustme.CA()
        self.bundle = os.path.join(directory, "ca.pem")
        self.authority.cert_pem.write_to_path(self.bundle)
        self.contexts = {}
        self.requests = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def context(self, name):
        if name not in self.contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.authority.issue_cert(name).configure_cert(context)
            context.set_alpn_protocols(["http/1.1"])
            self.contexts[name] = context
        return self.contexts[name]

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            if connection.recv(8, socket.MSG_PEEK).startswith(b"CONNECT"):
                while not self.head(connection).endswith(b"\r\n\r\n"):
                    pass
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.authority.issue_cert("unnamed.invalid").configure_cert(outer)
            outer.set_alpn_protocols(["http/1.1"])

            def choose(tls, name, _):
                tls.context = self.context(name or "unnamed.invalid")

            outer.sni_callback = choose
            with outer.wrap_socket(connection, server_side=True) as tls:
                while self.request(tls):
                    pass
        except (OSError, ValueError):
            pass

    @staticmethod
    def head(stream):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = stream.recv(1)
            if not byte:
                break
            head += byte
        return head

    def request(self, tls):
        head = self.head(tls)
        if not head.endswith(b"\r\n\r\n"):
            return False
        self.requests.append(head.decode("latin-1"))
        fields = [line.split(":", 1) for line in head.decode("latin-1").split("\r\n")[1:] if ":" in line]
        fields = {name.strip().lower(): value.strip() for name, value in fields}
        if fields.get("expect", "").lower() == "100-continue":
            tls.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        left = int(fields.get("content-length", "0"))
        while left > 0:
            left -= len(tls.recv(min(left, 65536)) or b" " * left)
        chunked = b""
        while fields.get("transfer-encoding") == "chunked" and not chunked.endswith(b"0\r\n\r\n"):
            chunked += tls.recv(65536)
        tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        return True


def template(name):
    with open(TEMPLATES / f"{name}.toml", "rb") as file:
        return tomllib.load(file)


def variables(parsed):
    """What `claviger run` puts into the environment."""
    default = "claviger-placeholder-00000000000000000000"
    placeholders = parsed.get("placeholders", {})
    return {variable: placeholders.get(key, default) for variable, key in parsed.get("env", {}).items()}


def is_ours(head, parsed):
    host = next((line.split(":", 1)[1].strip() for line in head.split("\r\n") if line.lower().startswith("host:")), "")
    names = [pattern.removeprefix("https://").replace("**", "*") for pattern in parsed["hosts"]]
    return any(fnmatch.fnmatch(host, name) or fnmatch.fnmatch(host, f"{name}:443") for name in names)


def cleaned(head):
    lines = head.strip().split("\r\n")
    kept = [lines[0]]
    for line in lines[1:]:
        name, value = (part.strip() for part in line.split(":", 1))
        lower = name.lower()
        if lower in VOLATILE or lower.startswith(VOLATILE_PREFIXES):
            continue
        if "user-agent" in lower:
            value = value.split(" ")[0].split(";")[0]
        value = re.sub(r'(oauth_(?:nonce|timestamp|signature))="[^"]*"', r'\1="..."', value)
        if lower == "content-type":
            value = value.split(";")[0]
        if value:
            kept.append(f"{name}: {value}")
    return "\n".join(kept) + "\n"


def run(name, client, recorder):
    """The first request that the client sends to one of the template's hosts."""
    parsed = template(name)
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    environment |= variables(parsed)
    environment |= {key: recorder.bundle for key in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")}
    environment |= {"RECORDER_PORT": str(recorder.port), "RECORDER_CA": recorder.bundle, "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTHONPATH": str(HERE), "HTTPS_PROXY_OF_CLI": f"http://127.0.0.1:{recorder.port}"}
    recorder.requests.clear()
    if "shell" in client:
        command = ["sh", "-c", client["shell"]]
    else:
        command = [sys.executable, str(HERE / "client.py"), name]
    with tempfile.TemporaryDirectory() as directory:
        try:
            done = subprocess.run(command, env=environment, cwd=directory, timeout=60, capture_output=True, text=True)
            output = done.stdout + done.stderr
        except subprocess.TimeoutExpired as late:
            output = f"{late.stdout} {late.stderr}"
    heads = [head for head in recorder.requests if is_ours(head, parsed)]
    held = [head for head in heads if any(mark in head.lower() for mark in MARKS)]
    if not held:
        print(f"{name}: nothing was recorded\n{output[-600:]}\n{recorder.requests[:2]}", file=sys.stderr)
        return None
    return held[0]


def origin(client):
    if "package" in client:
        return f"{client['package']} {importlib.metadata.version(client['package'])} (Python)"
    return client["by"]


def main():
    from clients import CLIENTS

    wanted = sys.argv[1:] or sorted(CLIENTS)
    missing = []
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(directory)
        for name in wanted:
            head = run(name, CLIENTS[name], recorder)
            if head is None:
                missing.append(name)
                continue
            (HERE / f"{name}.http").write_text(f"# {origin(CLIENTS[name])}\n{cleaned(head)}")
    print(f"{len(wanted) - len(missing)} of {len(wanted)} recorded")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
