"""Client channels between processes.

Owns transport options (size limits, keepalive, reconnection). Must not know which service is at the other end.
"""

import grpc.aio

MAX_MESSAGE_BYTES = 64 * 1024 * 1024


def open_channel(address: str, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> grpc.aio.Channel:
    """Open a plaintext channel (loopback, or a network trusted by `insecure`); call it inside the running loop.

    A peer that vanished without a word is noticed after about 30 s, on idle connections too; a peer that came back is
    found within about a second.
    """
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 300),
            # Despite its name this bounds one connection attempt; the default of 20 s outlives a lost host's return.
            ("grpc.min_reconnect_backoff_ms", 5_000),
            # A proxy set for the web must not swallow traffic between our own processes.
            ("grpc.enable_http_proxy", 0),
        ],
    )
