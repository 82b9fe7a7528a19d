"""A WebSocket by `websockets`, which finds its proxy and its trust in the environment."""

from websockets.sync.client import connect

with connect("wss://api.stripe.com/websocket/python") as socket:
    socket.send("hello")
    assert socket.recv(timeout=20) == "hello"
    socket.send("x" * 100_000)
    assert socket.recv(timeout=20) == "x" * 100_000
    socket.ping().wait(20)
    socket.send("key")
    print("masked:", socket.recv(timeout=20))
    socket.send("key in pieces")
    print("pieces:", socket.recv(timeout=20))
print("websocket: ok")
