#!/usr/bin/env python3
"""Well-behaved users beside a flood: how much later their messages come.

  Tests/Peers/flood.py MARTLET [--seconds S] [--bad N] [--idle N] [--again S] [--rounds N] [node|router …]    (make bench builds MARTLET)

200 users in 20 rooms publish 200 messages a second (`martlet bench rooms`), first alone, then beside a flood from 64 other addresses
(127.1.0.1 … 127.1.0.64): N connections without a user (2,000: half of them say nothing, half open a WebSocket and say nothing; one
that is closed is opened anew after S seconds: 1, or 0 for as fast as a CPU goes) and N bad handshakes (50,000, over the time of the run: no HTTP, no handshake, another version or
path, half a head, a WebSocket with a broken frame). Then the same through a router. Limits are the defaults, but for
those of messages, which the users need, and the node takes 127.0.0.1 alone for a trusted proxy. Prints both p99 and their ratio,
what the flood was answered, and what the node counted; ends with 1 when a ratio is over 2.

Redis, node and router are its own, in a temporary folder, and end with it. The flood is one process that runs only where nobody else would (SCHED_IDLE), as its CPU
time would not be the server's.
"""

import argparse
import collections
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench import Processes  # noqa: E402

SOURCES = [f"127.1.0.{number}" for number in range(1, 65)]
SETTINGS = {"MARTLET_AUTH": "none", "MARTLET_HOST": "127.0.0.1", "MARTLET_LOG_LEVEL": "warning",
            "MARTLET_TRUSTED_PROXIES": "127.0.0.1", "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0",
            "MARTLET_LIMIT_USER_MESSAGES_PER_SECOND": "0"}
HANDSHAKE = ("GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


class Flood:
    """Connections that want no good, on one thread."""

    def __init__(self, port, idle, bad, seconds, again):
        self.port, self.idle, self.bad, self.seconds, self.again = port, idle, bad, seconds, again
        self.due = collections.deque()
        self.selector = selectors.DefaultSelector()
        self.answers = collections.Counter()
        self.held = self.sent = self.opened = 0
        good = HANDSHAKE.format(port=port)
        self.kinds = [text.encode() for text in (
            "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no HTTP\r\n\r\n", good.replace("Upgrade: websocket\r\n", ""),
            good.replace("Version: 13", "Version: 8"), good.replace("/ws", "/nowhere"), good[:60], good.replace("GET", "POST"),
            good + "\x81\x01a")]
        self.stranger = good.encode()

    def open(self, say, deadline, holds):
        """A connection that says something at once, and is given up at the deadline."""
        connection = socket.socket()
        connection.setblocking(False)
        connection.bind((SOURCES[self.opened % len(SOURCES)], 0))
        self.opened += 1
        connection.connect_ex(("127.0.0.1", self.port))
        state = {"say": say, "deadline": deadline, "holds": holds, "heard": b""}
        self.selector.register(connection, selectors.EVENT_WRITE if say else selectors.EVENT_READ, state)
        self.held += holds

    def close(self, connection, state, what):
        self.selector.unregister(connection)
        connection.close()
        self.held -= state["holds"]
        if state["holds"]:
            self.due.append(time.monotonic() + self.again)
        self.answers[("held: " if state["holds"] else "bad: ") + what] += 1

    def event(self, connection, state):
        try:
            if state["say"]:
                connection.send(state["say"])
                state["say"] = b""
                self.selector.modify(connection, selectors.EVENT_READ, state)
                return
            data = connection.recv(4096)
        except OSError:
            data = b""
        state["heard"] += data[:64]
        # A WebSocket may have its answer and stay.
        if not data or (not state["holds"] and not state["heard"].startswith(b"HTTP/1.1 101")):
            line = state["heard"].split(b"\r\n")[0].decode(errors="replace")
            self.close(connection, state, line[9:12] if line.startswith("HTTP/") else "closed")

    def run(self):
        started = now = time.monotonic()
        while now < started + self.seconds:
            for key, _ in self.selector.select(0.01):
                self.event(key.fileobj, key.data)
            now = time.monotonic()
            while self.sent < self.bad * (now - started) / self.seconds and len(self.selector.get_map()) < self.idle + 4000:
                self.open(self.kinds[self.sent % len(self.kinds)], now + 3, False)
                self.sent += 1
            while self.due and self.due[0] <= now:
                self.due.popleft()
            for _ in range(min(20, self.idle - self.held - len(self.due))):
                self.open(self.stranger if self.held % 2 else b"", now + 3600, True)
            if self.opened % 8 == 0:
                for key in [key for key in self.selector.get_map().values() if key.data["deadline"] < now]:
                    self.close(key.fileobj, key.data, "no answer in 3 s")
        held = self.held
        for key in list(self.selector.get_map().values()):
            self.close(key.fileobj, key.data, "still open")
        return {"bad": self.sent, "opened": self.opened, "held": held, "answers": dict(sorted(self.answers.items()))}


def users(martlet, url, seconds):
    """What the well-behaved see; times in milliseconds."""
    command = [martlet, "bench", "rooms", "--rooms", "20", "--members", "10", "--rate", "200", "--seconds", str(seconds), "--warm-up", "2",
               "--url", url, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def report(child):
    out, _ = child.communicate()
    if child.returncode:
        sys.exit(f"flood: the users failed: {out}")
    return json.loads(out)


def counters(port):
    with socket.create_connection(("127.0.0.1", port + 1000)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    wanted = ("martlet_anomaly_total", "martlet_connections_refused_total", "martlet_barred_total", "martlet_connections_dropped")
    return [line for line in text.split("\n") if line.startswith(wanted) and not line.endswith(" 0")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("martlet")
    parser.add_argument("places", nargs="*", metavar="{node,router}")
    parser.add_argument("--seconds", type=int, default=50)
    parser.add_argument("--bad", type=int, default=50000)
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--again", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--flood", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        print(json.dumps(Flood(options.flood, options.idle, options.bad, options.seconds, options.again).run()))
        return
    worst = 0
    places = options.places or ["node", "router"]
    if wrong := set(places) - {"node", "router"}:
        parser.error(f"a place is node or router, not {min(wrong)}")
    for place in places:
        for _ in range(options.rounds):
            worst = max(worst, measure(options, place))
    sys.exit(worst > 2)


def measure(options, place):
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(options.martlet, Path(folder))
        try:
            redis, sock = processes.redis("--appendonly", "yes", "--appendfsync", "everysec")
            node, router = processes.port + 1, processes.port + 2
            own = {**SETTINGS, "MARTLET_REDIS_URL": f"unix://{sock}"}
            child = processes.start([options.martlet, "node"], {**own, "MARTLET_PORT": str(node), "MARTLET_NODE_NAME": "flooded"})
            processes.wait(lambda: processes.answers(node, None), child)
            port = node
            if place == "router":
                own.update(MARTLET_PORT=str(router), MARTLET_TRUSTED_PROXIES="", MARTLET_SECRET="a secret of the flood")
                child = processes.start([options.martlet, "router"], own)
                health = f"http://127.0.0.1:{router}/_router/healthz"
                processes.wait(lambda: subprocess.run([options.martlet, "healthcheck", health], capture_output=True).returncode == 0, child)
                time.sleep(3)
                port = router
            url = f"ws://127.0.0.1:{port}/ws"
            quiet = report(users(options.martlet, url, 20))
            beside = users(options.martlet, url, options.seconds)
            time.sleep(3)
            flood = subprocess.Popen([sys.executable, __file__, options.martlet, "--flood", str(port), "--seconds", str(options.seconds),
                                      "--bad", str(options.bad), "--idle", str(options.idle), "--again", str(options.again)], stdout=subprocess.PIPE, text=True)
            flooded = report(beside)
            told, _ = flood.communicate()
            told = json.loads(told)
            a, b = quiet["latency_ms"]["p99"], flooded["latency_ms"]["p99"]
            print(f"{place}: p99 {a:.2f} ms alone, {b:.2f} ms beside the flood: {b / a:.2f} times; p50 {quiet['latency_ms']['p50']:.2f} and"
                  f" {flooded['latency_ms']['p50']:.2f} ms", flush=True)
            print(f"  {told['bad']} bad handshakes, {told['opened']} connections in all, {told['held']} held at the end: {told['answers']}")
            print("  " + "\n  ".join(counters(node)), flush=True)
            return b / a
        finally:
            processes.end()


if __name__ == "__main__":
    main()
