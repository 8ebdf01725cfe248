#!/usr/bin/env python3
"""Measures a release build: in turns with the socket floor (floor.c), beside a `ws` + `redis` server (ws-redis.js), idle,
publishing. Prints the figures as they come, and the four targets with how far they were met; a whole run also writes them
into docs/performance.md.

  Tests/Peers/bench.py MARTLET [--quick] [SECTION…]     sections: fanout rooms idle publish soak others tls (make bench)
  Tests/Peers/bench.py MARTLET [--quick] proxies        the router beside HAProxy and NGINX (proxies.py, docs/router.md)
  Tests/Peers/bench.py MARTLET [--quick] proxies latency    of these the added latency alone, in five rounds

Nodes, Redis and the peers are its own, in a temporary folder, and end with it. A quick run or one of some sections writes
nothing. The peer's libraries are Debian's node-ws and node-redis: those that are installed, else unpacked from the packages
into the temporary folder, else npm's; without Node.js its rows are left out.
"""

import datetime
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "performance.md"
DEBIAN = ["node-ws", "node-redis", "node-generic-pool", "node-yallist"]
LIFTED = {"MARTLET_AUTH": "none", "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0", "MARTLET_LIMIT_UPGRADES_PER_SECOND": "0",
          "MARTLET_LIMIT_BYTES_PER_SECOND": "0", "MARTLET_LIMIT_USER_MESSAGES_PER_SECOND": "0",
          "MARTLET_LIMIT_SESSIONS_PER_USER": "0", "MARTLET_LIMIT_ADDRESS_CONNECTIONS": "0",
          "MARTLET_LIMIT_ADDRESS_HANDSHAKES_PER_SECOND": "0", "MARTLET_LIMIT_ADDRESS_FAILURES": "0",
          "MARTLET_LIMIT_UNAUTHENTICATED": "0", "MARTLET_ORIGIN_MISSING": "allow",
          "MARTLET_LOG_LEVEL": "error", "MARTLET_HOST": "127.0.0.1"}


class Processes:
    """What was started, to be ended with the run."""

    def __init__(self, martlet, folder):
        self.martlet, self.folder, self.running, self.port = martlet, folder, [], 21000 + os.getpid() % 9000

    def start(self, command, environment=None):
        log = open(self.folder / "log", "ab")
        child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
        self.running.append(child)
        return child

    def redis(self, *options):
        socket = self.folder / f"redis-{len(self.running)}"
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        child = self.start(["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", "",
                            "--loglevel", "warning", "--client-output-buffer-limit", "pubsub 256mb 128mb 60", *options])
        self.wait(socket.exists, child)
        return child, socket

    def cluster(self, nodes, certificate=None):
        """Redis with an append-only file, and nodes (with a certificate and its key: that speak TLS); their processes, and
        their addresses."""
        redis, socket = self.redis("--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction")
        started = []
        for number in range(nodes):
            self.port += 1
            own = {"MARTLET_REDIS_URL": f"unix://{socket}", "MARTLET_PORT": str(self.port), "MARTLET_INTERNAL_PORT": "0",
                   "MARTLET_NODE_NAME": f"bench-{number}"}
            if certificate:
                own |= {"MARTLET_TLS_CERT": str(certificate[0]), "MARTLET_TLS_KEY": str(certificate[1])}
            started.append((self.start([self.martlet, "node"], {**LIFTED, **own}), self.port))
        for child, port in started:
            self.wait(lambda: self.answers(port, bool(certificate)), child)
        scheme = "wss" if certificate else "ws"
        return [child for child, _ in started], redis, [f"{scheme}://127.0.0.1:{port}/ws" for _, port in started]

    def answers(self, port, secure):
        url = f"http{'s' if secure else ''}://127.0.0.1:{port}/readyz"
        return subprocess.run([self.martlet, "healthcheck", "--insecure", url], capture_output=True).returncode == 0

    def peers(self, count, modules):
        redis, socket = self.redis("--appendonly", "no")
        started = []
        for _ in range(count):
            self.port += 1
            child = self.start(["node", str(HERE / "ws-redis.js"), str(self.port), str(socket)], {"NODE_PATH": modules})
            started.append((child, self.port))
        for child, port in started:
            self.wait(lambda: shutil.which("node") and connects(port), child)
        return [child for child, _ in started], redis, [f"ws://127.0.0.1:{port}/" for _, port in started]

    def wait(self, condition, child):
        for _ in range(300):
            if condition():
                return
            if child.poll() is not None:
                break
            time.sleep(0.05)
        sys.exit(f"bench: {' '.join(map(str, child.args))} did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def end(self, since=0):
        for child in self.running[since:]:
            child.terminate()
        for child in self.running[since:]:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        del self.running[since:]


def connects(port):
    import socket
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def peer_modules(folder):
    """Where Node.js finds `ws` and `redis`, and where they are from; nothing when it cannot."""
    def works(path):
        return subprocess.run(["node", "-e", "require('ws'); require('redis')"], capture_output=True,
                              env={**os.environ, "NODE_PATH": path}).returncode == 0

    def versions(path):
        code = "console.log('ws ' + require('ws/package.json').version + ', redis ' + require('redis/package.json').version)"
        return subprocess.run(["node", "-p", code + "; 'Node.js ' + process.version"], capture_output=True, text=True,
                              env={**os.environ, "NODE_PATH": path}).stdout.strip().replace("\n", ", ")

    if not shutil.which("node"):
        return None
    into = folder / "modules"
    into.mkdir()
    for path in [os.environ.get("NODE_PATH", ""), "/usr/share/nodejs"]:
        if works(path):
            return path, versions(path)
    if shutil.which("apt-get") and subprocess.run(["apt-get", "download", *DEBIAN], cwd=into, capture_output=True).returncode == 0:
        for package in into.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, into], check=True)
        if works(str(into / "usr/share/nodejs")):
            return str(into / "usr/share/nodejs"), versions(str(into / "usr/share/nodejs"))
    npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(into), "ws@8", "redis@4"]
    if shutil.which("npm") and subprocess.run(["timeout", "60", *npm], capture_output=True).returncode == 0:
        return str(into / "node_modules"), versions(str(into / "node_modules"))
    return None


class Bench:
    def __init__(self, martlet, folder, quick):
        self.martlet, self.folder, self.quick = martlet, folder, quick
        self.processes = Processes(martlet, folder)
        self.seconds = 1 if quick else 4
        self.rows = {}
        self.targets = {}
        self.commands = {}
        self.peer = ""

    def run(self, arguments, urls, pids, seconds=None, warm_up=1):
        """One report of `martlet bench`; its processes are in the order of the pids."""
        arguments = [*arguments, "--seconds", str(seconds or self.seconds), "--warm-up", str(warm_up)]
        command = [self.martlet, "bench", *arguments, "--json"]
        for url in urls:
            command += ["--url", url]
        for child in pids:
            command += ["--pid", str(child.pid)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"bench: {' '.join(arguments)}: {done.stderr}")
        return json.loads(done.stdout)

    def row(self, table, *cells):
        print("  ".join(str(cell) for cell in cells), flush=True)
        self.rows.setdefault(table, []).append(cells)

    def target(self, name, value, limit, unit=""):
        """A value that is to be at most the limit."""
        verdict = "met" if value <= limit else f"missed by {100 * (value / limit - 1):.1f} %"
        self.targets[name] = (f"≤ {limit:.3g}{unit}", f"{value:.3g}{unit}", verdict)
        print(f"  target {name}: {value:.3g}{unit} of {limit:.3g}{unit}: {verdict}", flush=True)

    def fanout(self):
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("clang") or sys.exit("bench: a C compiler is missing")
        subprocess.run([compiler, "-O2", "-o", self.folder / "floor", HERE / "floor.c"], check=True)
        since = len(self.processes.running)
        nodes, redis, urls = self.processes.cluster(1)
        fastest = {}
        for in_flight, limit in [(1, 1.2), (4, None), (16, 0.35)]:
            pairs = []
            for _ in range(1 if self.quick else 3 if limit is None else 5):
                floor = [self.folder / "floor", "1000", "150", str(self.seconds), str(in_flight)]
                price = json.loads(subprocess.run(floor, capture_output=True, text=True, check=True).stdout)["cpu_us_per_send"]
                report = self.run(["fanout", "--members", "1000", "--in-flight", str(in_flight)], urls, [*nodes, redis])
                pairs.append((report["processes"][0]["cpu_us_per_operation"], price, report))
            ratios = sorted(ours / floor for ours, floor, _ in pairs)
            middle = [statistics.median(column) for column in list(zip(*pairs))[:2]]
            last = pairs[-1][2]
            fastest[in_flight] = last["messages_per_second"]
            self.row("fanout", in_flight, f"{middle[0]:.2f}", f"{middle[1]:.2f}", f"{statistics.median(ratios):.2f}",
                     f"{ratios[0]:.2f}–{ratios[-1]:.2f}", len(pairs), thousands(last["operations_per_second"]),
                     *latency(last), f"{last['own_cpu_us_per_operation']:.2f}")
            if limit:
                self.target(f"fan-out, {in_flight} in flight: node CPU a delivery / floor", statistics.median(ratios), limit)
        for in_flight, limit in [(1, 10), (16, 10)]:
            rate = round(fastest[in_flight] / 2)
            report = self.run(["fanout", "--members", "1000", "--rate", str(rate)], urls, [*nodes, redis])
            cost = report["processes"][0]["cpu_us_per_operation"]
            self.row("fanout", f"{rate} a second", f"{cost:.2f}", "", "", "", 1, thousands(report["operations_per_second"]),
                     *latency(report), f"{report['own_cpu_us_per_operation']:.2f}")
            self.target(f"fan-out at half of the rate that {in_flight} in flight reach{'es' if in_flight == 1 else ''}: p99",
                        report["latency_ms"]["p99"], limit, " ms")
        self.processes.end(since)

    def rooms(self):
        since = len(self.processes.running)
        found = peer_modules(self.folder)
        sides = [("Martlet", *self.processes.cluster(2))]
        if found:
            modules, self.peer = found
            sides.append(("ws + redis", *self.processes.peers(2, modules)))
        else:
            print("  no peer: Node.js with ws and redis is neither there nor to be had", flush=True)
        for load, name, limit in [(["--in-flight", "4"], "4 in flight each", None),
                                  (["--in-flight", "16"], "16 in flight each", 1 / 3),
                                  (["--rate", "2000"], "2,000 publishes a second", 1 / 3)]:
            prices = {}
            reports = {}
            for _ in range(1 if self.quick else 3):
                for side, nodes, redis, urls in sides:
                    report = self.run(["rooms", "--rooms", "200", "--members", "10", *load], urls, [*nodes, redis], warm_up=2)
                    costs = [process["cpu_us_per_operation"] for process in report["processes"]]
                    prices.setdefault(side, []).append(sum(costs))
                    reports[side] = (report, costs)
            for side in prices:
                report, costs = reports[side]
                self.row("rooms", side, name, f"{statistics.median(prices[side]):.2f}",
                         f"{min(prices[side]):.2f}–{max(prices[side]):.2f}", f"{costs[0] + costs[1]:.2f} + {costs[2]:.2f}",
                         thousands(report["operations_per_second"]), *latency(report),
                         f"{report['own_cpu_us_per_operation']:.2f}")
            if found and limit:
                ours, theirs = (statistics.median(prices[side]) for side in ("Martlet", "ws + redis"))
                self.target(f"200 rooms × 10, {name}: CPU of nodes and Redis a delivery / peer", ours / theirs, limit)
        self.processes.end(since)

    def idle(self):
        count = min(15000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500) // 10 * 10
        count = 1000 if self.quick else count
        for rooms, limit in [(0, 3.5), (1, 4.5)]:
            since = len(self.processes.running)
            nodes, redis, urls = self.processes.cluster(1)
            report = self.run(["idle", "--connections", str(count), "--rooms-each", str(rooms)], urls, [*nodes, redis],
                              seconds=3 if self.quick else 30)
            node, store = report["processes"]
            memory = node["bytes_per_connection"] / 1024
            self.row("idle", thousands(count), rooms, f"{memory:.2f}", f"{node['resident_after'] / 2**20:.0f}",
                     f"{node['cpu_percent']:.2f}", f"{store['cpu_percent']:.2f}")
            self.target(f"idle, {'one room' if rooms else 'no room'}: memory a connection", memory, limit, " KiB")
            if rooms == 0:
                self.target("idle: CPU of all with heartbeats", node["cpu_percent"], 2, " %")
            self.processes.end(since)

    def publish(self):
        since = len(self.processes.running)
        nodes, redis, urls = self.processes.cluster(1)
        for rooms, in_flight, limit in [(64, 1, None), (64, 8, 5), (1, 1, None), (1, 8, 3)]:
            prices = []
            for _ in range(1 if self.quick or not limit else 3):
                report = self.run(["publish", "--publishers", "256", "--rooms", str(rooms), "--in-flight", str(in_flight)],
                                  urls, [*nodes, redis])
                prices.append(report["processes"][1]["cpu_us_per_operation"])
            node, store = report["processes"]
            busiest = max([("node", node["cpu_percent"]), ("Redis", store["cpu_percent"]),
                           ("bench", 100 * report["own_cpu_seconds"] / report["seconds"])], key=lambda pair: pair[1])
            name = f"256 in {rooms} room{'s' if rooms > 1 else ''}"
            self.row("publish", name, in_flight, thousands(report["operations_per_second"]),
                     *latency(report, "ack_latency_ms"), f"{node['cpu_us_per_operation']:.1f}",
                     f"{statistics.median(prices):.2f}", f"{min(prices):.2f}–{max(prices):.2f}",
                     f"{report['own_cpu_us_per_operation']:.1f}", f"{busiest[0]} at {busiest[1]:.0f} % of a core")
            if limit:
                self.target(f"{name.replace('256', '256 publishers')}, {in_flight} in flight each: Redis CPU an acked message",
                            statistics.median(prices), limit, " µs")
        report = self.run(["echo"], urls, [*nodes, redis])
        node, store = report["processes"]
        self.row("publish", "1 client", 1, thousands(report["operations_per_second"]), *latency(report),
                 f"{node['cpu_us_per_operation']:.1f}", f"{store['cpu_us_per_operation']:.1f}", "",
                 f"{report['own_cpu_us_per_operation']:.1f}", "the round trip")
        self.target("acked round trip of one client: p50", report["latency_ms"]["p50"], 1, " ms")
        self.processes.end(since)

    def soak(self):
        since = len(self.processes.running)
        nodes, redis, urls = self.processes.cluster(1)
        report = self.run(["soak", "--rooms", "300", "--members", "10", "--rate", "2000", "--interval", str(self.seconds)], urls,
                          [*nodes, redis], seconds=6 * self.seconds)
        for part in report["intervals"]:
            node, store = part["processes"]
            self.row("soak", f"{part['second']:.0f}", thousands(part["messages_per_second"]), f"{part['p50']:.2f}",
                     f"{part['p99']:.2f}", f"{part['p99_9']:.2f}", f"{part['max']:.2f}", f"{node['cpu_percent']:.0f}",
                     f"{node['resident_after'] / 2**20:.2f}", f"{store['resident_after'] / 2**20:.1f}")
        # The first stretch fills what is allocated once: buffers of sockets that had no traffic yet.
        grown = report["intervals"][-1]["processes"][0]["resident_after"] - report["intervals"][0]["processes"][0]["resident_after"]
        self.target("memory that traffic adds, a connection", max(0, grown) / 1024 / report["connections"], 0.1, " KiB")
        self.processes.end(since)

    def tls(self):
        if not shutil.which("openssl"):
            print("  no certificate: openssl is missing", flush=True)
            return
        certificate = self.folder / "certificate.pem", self.folder / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                        "-subj", "/CN=martlet", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", certificate[1], "-out",
                        certificate[0]], check=True, capture_output=True)
        trust = ["--cacert", str(certificate[0])]
        loads = [(f"delivery, 1,000 in a room, {in_flight} in flight", ["fanout", "--members", "1000", "--in-flight", str(in_flight)], 3)
                 for in_flight in (1, 4, 16)]
        loads.append(("handshake", ["connect"], 3))
        since = len(self.processes.running)
        sides = self.processes.cluster(1), self.processes.cluster(1, certificate)
        for name, arguments, pairs in loads:
            prices = []
            for _ in range(1 if self.quick else pairs):
                reports = [self.run([*arguments, *trust], urls, [*nodes, redis]) for nodes, redis, urls in sides]
                prices.append([report["processes"][0]["cpu_us_per_operation"] for report in reports])
            ratios = sorted(secure / plain for plain, secure in prices)
            plain, secure = (statistics.median(column) for column in zip(*prices))
            self.row("tls", f"CPU a {name}, µs", f"{plain:.2f}", f"{secure:.2f}", f"{statistics.median(ratios):.2f}",
                     f"{ratios[0]:.2f}–{ratios[-1]:.2f}", thousands(reports[1]["operations_per_second"]), *latency(reports[1]),
                     f"{reports[1]['own_cpu_us_per_operation']:.2f}")
        self.processes.end(since)
        sizes = []
        for pair in (None, certificate):
            nodes, redis, urls = self.processes.cluster(1, pair)
            report = self.run(["idle", "--connections", "1000" if self.quick else "5000", *trust], urls, [*nodes, redis], seconds=3)
            sizes.append(report["processes"][0]["bytes_per_connection"] / 1024)
            self.processes.end(since)
        self.row("tls", "memory an idle connection, KiB", f"{sizes[0]:.2f}", f"{sizes[1]:.2f}", f"{sizes[1] / sizes[0]:.1f}", "", "",
                 "", "", "")

    def others(self):
        since = len(self.processes.running)
        nodes, redis, urls = self.processes.cluster(2)
        for name, arguments in [("handshakes", ["connect"]), ("joins and leaves, 10 rooms", ["presence"]),
                                ("the same at 500 a second", ["presence", "--rate", "500"])]:
            report = self.run(arguments, urls, [*nodes, redis])
            cost = [process["cpu_us_per_operation"] for process in report["processes"]]
            self.row("others", name, thousands(report["operations_per_second"]), *latency(report),
                     f"{cost[0] + cost[1]:.0f}", f"{cost[2]:.0f}", f"{report['own_cpu_us_per_operation']:.0f}")
        self.processes.end(since)


def thousands(number):
    return f"{number:,.0f}"


def latency(report, key=None):
    times = report.get(key) or report["latency_ms"]
    return f"{times['p50']:.2f}", f"{times['p99']:.2f}", f"{times['p99_9']:.2f}"


TABLES = {
    "fanout": ("Fan-out: one room of 1,000 on one node, 150-byte texts",
               "martlet bench fanout --members 1000 --in-flight N` (`--rate N` in the last rows), in turns with `floor 1000 150 SECONDS N",
               ["in flight", "node, µs a delivery", "floor, µs", "node / floor, median", "spread", "pairs", "deliveries a second",
                "p50 ms", "p99 ms", "p99.9 ms", "bench, µs"]),
    "rooms": ("Many rooms: 200 of 10 members on two nodes, one publisher each",
              "martlet bench rooms --rooms 200 --members 10 --in-flight N` and `martlet bench rooms --rooms 200 --members 10 --rate 2000",
              ["server", "load", "nodes + Redis, µs a delivery, median of 3", "spread", "nodes + Redis of the last", "deliveries a second",
               "p50 ms", "p99 ms", "p99.9 ms", "bench, µs"]),
    "idle": ("Idle connections on one node, heartbeats every 25 s", "martlet bench idle --connections 15000 --rooms-each N",
             ["connections", "rooms each, of 10 members", "KiB a connection", "node, MiB", "node, % of a core", "Redis, % of a core"]),
    "publish": ("Acknowledged publishes on one node, with history, Redis with an append-only file (everysec)",
                "martlet bench publish --publishers 256 --rooms N --in-flight N` and `martlet bench echo",
                ["publishers", "in flight each", "acks a second", "p50 ms", "p99 ms", "p99.9 ms", "node, µs an ack", "Redis, µs, median of 3", "spread",
                 "bench, µs", "busiest"]),
    "soak": ("Traffic for a while: 300 rooms of 10 on one node", "martlet bench soak --rooms 300 --members 10 --rate 2000 --interval 4",
             ["second", "messages a second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "node, % of a core", "node, MiB", "Redis, MiB"]),
    "tls": ("TLS: a node that speaks it in turns with one that does not",
            "martlet bench fanout --members 1000 --in-flight N`, `martlet bench connect` and `martlet bench idle --connections 5000",
            ["what", "plain", "TLS", "TLS / plain, median of 3", "spread", "a second with TLS", "p50 ms", "p99 ms", "p99.9 ms", "bench, µs"]),
    "others": ("Coming and going, on two nodes", "martlet bench connect` and `martlet bench presence [--rate 500]",
               ["what", "a second", "p50 ms", "p99 ms", "p99.9 ms", "nodes, µs each", "Redis, µs each", "bench, µs"]),
}


def table(head, rows):
    return [f"| {' | '.join(map(str, cells))} |" for cells in [head, ["---"] * len(head), *rows]]


def machine():
    """When and on what: a sentence without its full stop."""
    processor = re.search(r"^model name[^:]*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout.split()[2].removeprefix("v=")
    return (f"{datetime.date.today()}, {os.cpu_count()} cores of {processor[1] if processor else platform.machine()}, {memory:.0f} GiB,"
            f" Linux {platform.release()}, Redis {redis}")


def page(bench):
    lines = [f"{machine()}{', peer: ' + bench.peer if bench.peer else ''}.", "", "### Targets", "",
             *table(["what", "target", "measured", ""], [(name, *cells) for name, cells in bench.targets.items()])]
    for name, rows in bench.rows.items():
        title, command, head = TABLES[name]
        lines += ["", f"### {title}", "", f"`{command}`", "", *table(head, rows)]
    return "\n".join(lines)


def write(path, mark, text):
    """Between the two comments of that name in a page."""
    marked = re.compile(rf"(<!-- {mark}:[^>]*-->\n).*?(<!-- /{mark} -->)", re.S)
    path.write_text(marked.sub(lambda match: match[1] + text + "\n" + match[2], path.read_text()))


def main(arguments):
    quick = "--quick" in arguments
    words = [word for word in arguments if word != "--quick"]
    sections = words[1:] or list(TABLES)
    of_proxies = sections in (["proxies"], ["proxies", "latency"])
    unknown = [name for name in sections if name not in TABLES and not of_proxies]
    if not words or unknown or not os.access(words[0], os.X_OK):
        sys.exit(f"bench: {'there is no section ' + unknown[-1] if unknown else 'name a martlet to run'}\n{__doc__}")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if of_proxies:
        sys.dont_write_bytecode = True
        import proxies
        run = proxies.latency if sections[1:] else proxies.main
        return run(str(Path(words[0]).resolve()), quick)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="martlet-bench-") as folder:
        bench = Bench(str(Path(words[0]).resolve()), Path(folder), quick)
        try:
            for name in sections:
                print(f"\n{TABLES[name][0]}\n{'  '.join(TABLES[name][2])}", flush=True)
                getattr(bench, name)()
        finally:
            bench.processes.end()
    text = page(bench)
    print(f"\n{text}\n\n{time.monotonic() - began:.0f} s")
    if not quick and sections == list(TABLES):
        write(PAGE, "bench", text)


if __name__ == "__main__":
    main(sys.argv[1:])
