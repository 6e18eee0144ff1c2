"""A wire to a cloud that can lose answers: bytes pass untouched until a story says otherwise."""

import socket
import struct
import threading


class Gate:
    """Listens on `port` and leads every connection to the loopback port `to`."""

    def __init__(self, to):
        self._to, self._open, self._lock = to, [], threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self):
        """From now on, what the cloud says on connections that are open at this moment is lost."""
        with self._lock:
            for wire in self._open:
                wire.swallows = True

    def cut(self):
        """Resets every connection that is open at this moment, on both sides."""
        with self._lock:
            for wire in self._open:
                wire.reset()
            self._open.clear()

    def _accept(self):
        while True:
            client, _ = self._listener.accept()
            wire = _Wire(client, socket.create_connection(("127.0.0.1", self._to)))
            with self._lock:
                self._open.append(wire)


class _Wire:
    def __init__(self, client, cloud):
        self._client, self._cloud, self.swallows = client, cloud, False
        threading.Thread(target=self._pump, args=(client, cloud, lambda: False), daemon=True).start()
        threading.Thread(target=self._pump, args=(cloud, client, lambda: self.swallows), daemon=True).start()

    def _pump(self, source, sink, lost):
        try:
            while piece := source.recv(65_536):
                if not lost():
                    sink.sendall(piece)
            if not lost():
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset()

    def reset(self):
        for end in (self._client, self._cloud):
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()
            except OSError:
                pass
