"""gRPC in its four kinds by `grpcio`, which finds its proxy and its trust in the environment."""

import queue

import grpc

channel = grpc.secure_channel("api.stripe.com:443", grpc.ssl_channel_credentials())


def path(name):
    return f"/claviger.test.Echo/{name}"


answer, call = channel.unary_unary(path("Unary")).with_call(b"hello", timeout=20)
assert answer == b"hello", answer
print("trailer:", dict(call.trailing_metadata())["x-echo"])
print("masked:", channel.unary_unary(path("Key"))(b"", timeout=20).decode())
assert list(channel.unary_stream(path("Repeat"))(b"again", timeout=20)) == [b"again"] * 3
count = channel.stream_unary(path("Count"))(iter([b"a", b"b", b"c"]), timeout=20)
assert count == b"3 messages", count

# Each message is sent when the answer to the last one is there.
messages = queue.SimpleQueue()
messages.put(b"0")
replies = channel.stream_stream(path("Stream"))(iter(messages.get, None), timeout=20)
for number in range(20):
    assert next(replies) == str(number).encode()
    messages.put(str(number + 1).encode() if number < 19 else None)
assert list(replies) == []

try:
    channel.unary_unary(path("Fail"))(b"", timeout=20)
    raise SystemExit("it did not fail")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
    assert error.details() == "as asked", error

endless = channel.stream_stream(path("Stream"))(iter(queue.SimpleQueue().get, None), timeout=1)
try:
    list(endless)
    raise SystemExit("the deadline did not come")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

messages = queue.SimpleQueue()
messages.put(b"once")
cancelled = channel.stream_stream(path("Stream"))(iter(messages.get, None), timeout=20)
assert next(cancelled) == b"once"
cancelled.cancel()
print("grpc: ok")
