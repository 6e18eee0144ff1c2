"""A cloud that costs nothing: takes any PUT, gives any number of bytes for a GET, over TLS. Runs as a process of
its own for the bench: `python -m lib.origin PORT CERTIFICATE KEY`."""

import re
import socket
import ssl
import sys
import threading

_PIECE = bytes(1 << 20)


def _serve(wire):
    buffer, head = bytearray(1 << 20), b""
    view = memoryview(buffer)
    while True:
        while b"\r\n\r\n" not in head:
            count = wire.recv_into(buffer)
            if not count:
                return
            head += view[:count].tobytes()
        head, _, rest = head.partition(b"\r\n\r\n")
        if head.startswith(b"GET"):
            size = int(re.search(rb"\?bytes=(\d+)", head).group(1))
            wire.sendall(b"HTTP/1.1 200 OK\r\nETag: \"fixed\"\r\nContent-Length: %d\r\n\r\n" % size)
            while size > 0:
                size -= wire.send(_PIECE[:min(size, len(_PIECE))])
            head = rest
            continue
        left = int(re.search(rb"(?i)\r\ncontent-length: (\d+)", head).group(1)) - len(rest)
        while left > 0:
            count = wire.recv_into(buffer, min(left, len(buffer)))
            if not count:
                return
            left -= count
        wire.sendall(b"HTTP/1.1 200 OK\r\nETag: \"fixed\"\r\nContent-Length: 0\r\n\r\n")
        head = b""


def _quietly(context, plain):
    try:
        with context.wrap_socket(plain, server_side=True) as wire:
            _serve(wire)
    except OSError:
        plain.close()


def main(port, certificate, key):
    """Serves until it is killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", int(port)), backlog=256) as listener:
        while True:
            plain, _ = listener.accept()
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_quietly, args=(context, plain), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
