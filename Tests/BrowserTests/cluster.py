"""A small cluster for the browser tests: its own redis-server, nodes and a router, all on free ports."""

import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARTLET = os.environ.get("TEST_PROGRAM") or str(ROOT / ".build/debug/martlet")


def clean_environment():
    """This process's, without settings of somebody's own cluster."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MARTLET_")}


_given_ports = set()


def free_port(in_a_row=1):
    """The first of so many ports that nothing listens on, none given twice. They are below the range from which the system
    takes ports of outgoing connections: one of those may come in between, or be held by a connection that just ended."""
    for _ in range(500):
        first = random.randrange(15_000, 31_500)
        row = range(first, first + in_a_row)
        if _given_ports.isdisjoint(row) and all(map(_is_free, row)):
            _given_ports.update(row)
            return first
    raise AssertionError(f"there are no {in_a_row} free ports in a row")


def _is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def http(url):
    """Status and body; status 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


class Cluster:
    def __init__(self, names=("node-a", "node-b", "node-c"), node_url="", **of_nodes):
        """`node_url` is what clients are told of each node, where `{port}` is its own; `of_nodes` goes to `start_node`."""
        self.node_url = node_url
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="martlet-browser-"))
        self.processes = {}
        self.ports = {}
        self.internal_ports = {}
        try:
            self.redis_port = free_port()
            self._start("redis", ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "",
                                  "--appendonly", "no", "--dir", str(self.folder)])
            wait_until("redis-server listens", self._redis_answers)
            for name in names:
                self.start_node(name, **of_nodes)
            self.start_router()
            self.settle(len(names))
        except BaseException:
            self.close()
            raise

    @property
    def url(self):
        return f"http://127.0.0.1:{self.ports['router']}"

    @property
    def ws(self):
        return f"ws://127.0.0.1:{self.ports['router']}/ws"

    def start_node(self, name, auth="none", **settings):
        port = self.ports.setdefault(name, free_port())
        command = [MARTLET, "node", "--port", str(port), "--name", name, "--auth", auth, "--drain", "5"]
        self._start(name, command, **{"MARTLET_NODE_URL": self.node_url.format(port=port), **settings})
        wait_until(f"{name} is ready", lambda: http(f"http://127.0.0.1:{port}/readyz")[0] == 200)

    def start_replica(self, name):
        command = ["redis-server", "--port", str(free_port()), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                   "--dir", str(self.folder), "--replicaof", "127.0.0.1", str(self.redis_port)]
        self._start(name, command)

    def start_router(self, **settings):
        port = self.ports.setdefault("router", free_port())
        self._start("router", [MARTLET, "router", "--port", str(port)], **settings)
        wait_until("the router listens", lambda: http(f"http://127.0.0.1:{port}/_router/healthz")[0] == 200)

    def settle(self, count=3):
        """Until the router has all nodes: a killed one is started again, a Redis that forgot is told again."""
        wait_until("the router knows the nodes", lambda: self._router_serves(count))

    def signal(self, name, number):
        process = self.processes[name]
        process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            process.wait(20)

    def kill(self, name):
        self.signal(name, signal.SIGKILL)

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def mint(self, user, secret, *options):
        """A token for `user`."""
        environment = {**clean_environment(), "MARTLET_TOKEN_SECRET": secret}
        return subprocess.run([MARTLET, "token", "mint", user, *options], env=environment, check=True, capture_output=True,
                              text=True).stdout.strip()

    def admin(self, *arguments):
        """What `martlet admin` prints."""
        environment = {**clean_environment(), "MARTLET_REDIS_URL": f"redis://127.0.0.1:{self.redis_port}"}
        return subprocess.run([MARTLET, "admin", *arguments], env=environment, check=True, capture_output=True,
                              text=True).stdout

    def _start(self, name, command, **settings):
        environment = clean_environment()
        environment["MARTLET_SECRET"] = "only for the browser tests, 32 bytes"
        environment["MARTLET_LIMIT_MESSAGES_PER_SECOND"] = "0"
        environment["MARTLET_LIMIT_USER_MESSAGES_PER_SECOND"] = "0"
        environment["MARTLET_LIMIT_BYTES_PER_SECOND"] = "0"
        environment["MARTLET_LIMIT_SESSIONS_PER_USER"] = "0"
        environment["MARTLET_LIMIT_ADDRESS_CONNECTIONS"] = "0"
        environment["MARTLET_LIMIT_ADDRESS_HANDSHAKES_PER_SECOND"] = "0"
        environment["MARTLET_LIMIT_ADDRESS_FAILURES"] = "0"
        # Each client of the conformance tests has a line of its own, so a host that is not the page's.
        environment["MARTLET_ORIGINS"] = "*"
        environment["MARTLET_ORIGIN_MISSING"] = "allow"
        environment["MARTLET_REDIS_URL"] = f"redis://127.0.0.1:{self.redis_port}"
        environment["MARTLET_INTERNAL_PORT"] = str(self.internal_ports.setdefault(name, free_port()))
        environment.update(settings)
        log = open(self.folder / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()

    def redis(self, command):
        """The answer's first bytes; empty when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.redis_port), 1) as connection:
                connection.sendall(command.encode() + b"\r\n")
                return connection.recv(64).decode()
        except OSError:
            return ""

    def _redis_answers(self):
        return self.redis("PING").startswith("+PONG")

    def _router_serves(self, count):
        status, body = http(f"http://127.0.0.1:{self.internal_ports['router']}/nodes")
        return status == 200 and str(json.loads(body)).count("node-") >= count
