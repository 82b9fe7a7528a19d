"""Runs one client: python client.py NAME. All its connections go to the recorder, whatever host they are for."""

import os
import socket
import sys

import certifi

PORT = int(os.environ["RECORDER_PORT"])
connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
resolve = socket.getaddrinfo


def led(address):
    is_network = isinstance(address, tuple) and len(address) >= 2
    return ("127.0.0.1", PORT) if is_network and address[0] == "127.0.0.1" else address


def local(host, port, *_, **__):
    port = int(port) if str(port).isdigit() else 443
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]


socket.socket.connect = lambda self, address: connect(self, led(address))
socket.socket.connect_ex = lambda self, address: connect_ex(self, led(address))
socket.getaddrinfo = local
certifi.where = lambda: os.environ["RECORDER_CA"]
certifi.contents = lambda: open(os.environ["RECORDER_CA"], encoding="ascii").read()

from clients import CLIENTS  # noqa: E402  (after the sockets are led)

CLIENTS[sys.argv[1]]["run"]()
