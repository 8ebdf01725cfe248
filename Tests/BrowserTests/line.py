"""The line between one client and the cluster: a TCP proxy that a test cuts."""

import contextlib
import socket
import threading


class Line:
    def __init__(self, target):
        self.target = target
        self.blocked = False
        self.silent = False  # what the client says is swallowed, and all that it says later on the same connection
        self._open = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Ends what is open. A new connection is let through, unless the line is blocked."""
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def block(self):
        self.blocked = True
        self.cut()

    def close(self):
        self.blocked = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client):
        with client, contextlib.suppress(OSError):
            if self.blocked:
                return
            with socket.create_connection(("127.0.0.1", self.target), 5) as server:
                server.settimeout(None)
                with self._lock:
                    self._open |= {client, server}
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server, lambda: self.silent)
                back.join()
                with self._lock:
                    self._open -= {client, server}

    def _pump(self, source, target, silent=lambda: False):
        dead = False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                dead = dead or silent()
                if not dead:
                    target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
