"""Martlet's router, proxying and handing over, beside HAProxy and NGINX: before one node, same machine, same load, in turns. Run
by `make bench ARGS=proxies`; writes the table in docs/router.md, unless it is a quick run.

HAProxy and NGINX run as docker/haproxy.cfg and docker/nginx.conf say, with the one node in all three places; HAProxy has as many
threads as the router, one a core, and NGINX as many workers. All write their line a connection. In a round each side gets
each load, one after the other, in an order that turns with the rounds; straight to the node twice, so that the second says how much of
a difference is noise. What is added to latency is the difference to straight of the same round.

CPU is utime + stime of all processes of a proxy (their CPU clocks, to the nanosecond), and what it costs to be there without
any traffic is in it. Memory is Pss (smaps_rollup), of processes that were started for it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import LIFTED, Processes, connects, machine, table, write

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "router.md"
ROOMS = ["rooms", "--rooms", "200", "--members", "5", "--bytes", "150"]
LOADS = [("200 messages a second", [*ROOMS, "--rate", "200"], 10), ("2,000 messages a second", [*ROOMS, "--rate", "2000"], 6),
         ("flat out", [*ROOMS, "--in-flight", "4"], 4)]
HANDSHAKES = ["connect", "--rate", "500"]
STRAIGHT, AGAIN, ROUTER, HANDOVER, HAPROXY, NGINX = SIDES = [
    "straight", "straight again", "router", "router, hand-over", "HAProxy", "NGINX"]
PROXIES = SIDES[2:]


class Proxies:
    """A node, and the proxies before it."""

    def __init__(self, martlet, folder, quick):
        self.martlet, self.folder, self.quick = martlet, folder, quick
        self.processes = Processes(martlet, folder)
        redis, socket = self.processes.redis("--appendonly", "no")
        self.redis = f"unix://{socket}"
        self.node = self.port()
        own = {"MARTLET_REDIS_URL": self.redis, "MARTLET_PORT": str(self.node), "MARTLET_INTERNAL_PORT": "0",
               "MARTLET_NODE_NAME": "measured"}
        child = self.processes.start([martlet, "node"], {**LIFTED, **own})
        self.processes.wait(lambda: self.processes.answers(self.node, False), child)
        # What was measured, a value a round: by measure, then by side.
        self.values = {}

    def port(self):
        self.processes.port += 1
        return self.processes.port

    def start(self, side):
        """Its port and the numbers of its processes, which `end` ends."""
        if side in (STRAIGHT, AGAIN):
            return self.node, []
        port = self.port()
        if side in (ROUTER, HANDOVER):
            own = {"MARTLET_REDIS_URL": self.redis, "MARTLET_PORT": str(port), "MARTLET_INTERNAL_PORT": "0",
                   "MARTLET_SECRET": "a secret of the bench", "MARTLET_LOG_LEVEL": "info",
                   "MARTLET_HANDOVER": "on" if side == HANDOVER else "off"}
            child = self.processes.start([self.martlet, "router"], {**LIFTED, **own})
        elif side == HAPROXY:
            threads = self.file("threads.cfg", f"global\n    nbthread {os.cpu_count()}\n")
            own = {f"NODE_{letter}": f"127.0.0.1:{self.node}" for letter in "ABC"} | {"LISTEN": f"127.0.0.1:{port}"}
            if os.getuid():
                import grp
                import pwd
                own |= {"RUN_AS_USER": pwd.getpwuid(os.getuid()).pw_name, "RUN_AS_GROUP": grp.getgrgid(os.getgid()).gr_name}
            child = self.processes.start(["/usr/sbin/haproxy", "-db", "-f", ROOT / "docker" / "haproxy.cfg", "-f", threads], own)
        else:
            text = (ROOT / "docker" / "nginx.conf").read_text().replace("listen 8080;", f"listen 127.0.0.1:{port};")
            for letter in "abc":
                text = text.replace(f"server node-{letter}:8081 ", f"server 127.0.0.1:{self.node} ")
            temporary = " ".join(f"{name}_temp_path {self.folder}/{name};"
                                 for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            text = text.replace("/var/log/nginx", str(self.folder)).replace("http {\n", f"http {{\n{temporary}\n")
            child = self.processes.start(["/usr/sbin/nginx", "-e", "stderr", "-p", self.folder, "-c", self.file(f"nginx-{port}", text),
                                          "-g", f"daemon off; pid {self.folder}/nginx-{port}.pid;"])
        self.processes.wait(lambda: connects(port) and self.processes.answers(port, False), child)
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        return port, [child.pid, *map(int, children)]

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def command(self, port, pids, arguments, seconds):
        command = [self.martlet, "bench", *arguments, "--seconds", str(seconds), "--json", "--url",
                   f"ws://127.0.0.1:{port}/ws"]
        return command + [word for pid in pids for word in ("--pid", str(pid))]

    def report(self, child, out):
        if child.returncode:
            sys.exit(f"bench: {' '.join(child.args[1:])} failed")
        return json.loads(out)

    def run(self, port, pids, arguments, seconds):
        child = subprocess.run(self.command(port, pids, arguments, 1 if self.quick else seconds), stdout=subprocess.PIPE, text=True)
        report = self.report(child, child.stdout)
        report["cpu"] = sum(process["cpu_seconds"] for process in report["processes"])
        return report

    def keep(self, measure, side, value):
        self.values.setdefault(measure, {}).setdefault(side, []).append(value)
        print(f"  {side}: {measure} {value:.3f}", flush=True)

    def loads(self, sides, order, loads=LOADS, handshakes=True):
        for name, arguments, seconds in loads:
            straight = None
            for side in [STRAIGHT, *order]:
                port, pids = sides[side]
                report = self.run(port, pids, arguments, seconds)
                # A publish and its ack pass once, each of its deliveries, too.
                passed = report["operations"] + 2 * report["messages"]
                if pids:
                    self.keep(f"CPU a message passed, {name}, µs", side, report["cpu"] * 1e6 / passed)
                if "--rate" not in arguments:
                    self.keep(f"messages passed a second, {name}", side, passed / report["seconds"])
                    continue
                straight = straight or report["latency_ms"]
                for quantile in ("p50", "p99"):
                    value = report["latency_ms"][quantile]
                    if side == STRAIGHT:
                        self.keep(f"latency of a delivery, {name}, {quantile}, ms", side, value)
                    else:
                        self.keep(f"added latency, {name}, {quantile}, ms", side, value - straight[quantile])
        for side in order if handshakes else []:
            port, pids = sides[side]
            if pids:
                report = self.run(port, pids, HANDSHAKES, 4)
                self.keep("CPU a connection made and ended, µs", side, report["cpu"] * 1e6 / report["operations"])

    def memory(self, side, connections, arguments):
        """Bytes a connection, of processes that are new, and the CPU they take in a second of it in percent of a core."""
        since = len(self.processes.running)
        port, pids = self.start(side)
        time.sleep(1)
        before = pss(pids)
        child = subprocess.Popen(self.command(port, [], arguments, 8), stdout=subprocess.PIPE, text=True)
        while child.poll() is None and descriptors(child.pid) < connections:
            time.sleep(0.05)
        time.sleep(2)
        began, used = time.monotonic(), cpu(pids)
        time.sleep(4)
        busy = 100 * (cpu(pids) - used) / (time.monotonic() - began)
        after = pss(pids)
        if child.poll() is not None:
            sys.exit(f"bench: {side}: the connections did not last until they were measured")
        self.report(child, child.communicate()[0])
        self.processes.end(since)
        return (after - before) / connections, busy, before

    def memories(self, order):
        many = 1000 if self.quick else 5000
        for side in order:
            bytes_each, busy, base = self.memory(side, many, ["idle", "--connections", str(many)])
            self.keep(f"memory a connection, {many:,} idle, KiB", side, bytes_each / 1024)
            self.keep(f"CPU with {many:,} idle, % of a core", side, busy)
            self.keep("memory without connections, MiB", side, base / 2**20)
        for side in order:
            bytes_each, _, _ = self.memory(side, 1000, LOADS[1][1])
            self.keep("memory a connection, 1,000 in traffic, KiB", side, bytes_each / 1024)


def latency(martlet, quick):
    """What the router and HAProxy add, in more rounds than `main` has: of all the figures this is what a busy machine hides."""
    with tempfile.TemporaryDirectory(prefix="martlet-bench-") as folder:
        proxies = Proxies(martlet, Path(folder), quick)
        others = [AGAIN, ROUTER, HAPROXY]
        try:
            for number in range(1 if quick else 5):
                since = len(proxies.processes.running)
                turn = number % len(others)
                sides = {side: proxies.start(side) for side in [STRAIGHT, *others]}
                proxies.loads(sides, others[turn:] + others[:turn], LOADS[:2], handshakes=False)
                proxies.processes.end(since)
        finally:
            proxies.processes.end()
    print(f"\n{page(proxies.values)}")


def pss(pids):
    """Bytes of RAM, those that processes share divided among them."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def cpu(pids):
    """Seconds of utime and stime, of all their threads."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def descriptors(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def cell(values):
    if not values:
        return ""
    places = 0 if max(values) >= 1000 else 2
    middle, least, most = (f"{value:,.{places}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})" if len(values) > 1 else middle


def page(values):
    """The tables; a value is the median of the rounds, with the least and the most of them."""
    rows = []
    for measure, sides in values.items():
        ours, theirs = (statistics.median(sides[side]) if side in sides else None for side in (ROUTER, HAPROXY))
        verdict = ""
        if ours is not None and not measure.startswith(("messages", "memory without", "CPU with")):
            verdict = "met" if ours <= theirs else "missed"
            verdict += f": {ours / theirs:.2f}" if theirs > 0 and ours > 0 else ""
        rows.append((measure, *(cell(sides.get(side)) for side in SIDES), verdict))
    versions = [subprocess.run(command, capture_output=True, text=True) for command in (["/usr/sbin/haproxy", "-v"], ["/usr/sbin/nginx", "-v"])]
    words = versions[0].stdout.split()[2].split("-")[0], versions[1].stderr.split("/")[1].strip()
    return "\n".join([f"{machine()}, HAProxy {words[0]}, NGINX {words[1]}; {max(len(v) for s in values.values() for v in s.values())} rounds.",
                      "", *table(["what", *SIDES, "router ≤ HAProxy"], rows)])


def main(martlet, quick):
    missing = [name for name in ("haproxy", "nginx") if not os.access(f"/usr/sbin/{name}", os.X_OK)]
    if missing:
        sys.exit(f"bench: {' and '.join(missing)} missing: `make deps-test` installs what is needed")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="martlet-bench-") as folder:
        proxies = Proxies(martlet, Path(folder), quick)
        try:
            for number in range(1 if quick else 3):
                print(f"\nround {number + 1}", flush=True)
                since = len(proxies.processes.running)
                order = SIDES[1:]
                order = order[number:] + order[:number]
                sides = {side: proxies.start(side) for side in SIDES}
                proxies.loads(sides, order)
                proxies.processes.end(since)
                proxies.memories([side for side in order if side in PROXIES])
        finally:
            proxies.processes.end()
    text = page(proxies.values)
    print(f"\n{text}\n\n{time.monotonic() - began:.0f} s")
    if not quick:
        write(PAGE, "proxies", text)
