"""martlet.js on real clusters whose nodes clients may reach themselves: with `locatesNode` it connects there, without the
router, and through it where that cannot be."""

import json
import re
import socket
import threading
import unittest
from urllib.parse import urlencode

from websockets.sync.server import serve

import shared
from cluster import Cluster, free_port, http, wait_until

# Calls back when a message of the client was stored, and it is closed.
CONNECT = """
    const [options, done] = arguments;
    import("/martlet.js").then(({ Martlet }) => {
      const chat = new Martlet(options);
      const states = [];
      const started = performance.now();
      const end = (fate) => {
        done({ node: chat.node, states: [...states], seconds: (performance.now() - started) / 1000, fate });
        chat.close();
      };
      chat.addEventListener("state", ({ detail }) => states.push(detail.state));
      chat.join("r");
      chat.connect();
      chat.send("r", "hi").done.then(() => end("stored"), ({ message }) => end(message));
      setTimeout(end, 20000, "it was not stored within 20 s");
    }, (error) => done({ fate: `${error}` }));
"""
ITSELF = "ws://127.0.0.1:{port}/ws"


class Located(unittest.TestCase):
    users = 0

    def start(self, url, names=("node-a",), **of_nodes):
        self.cluster = Cluster(names, node_url=url, **of_nodes)
        self.addCleanup(self.cluster.close)
        self.window = shared.window("locate")
        self.addCleanup(self.window.cdp, "Page.setBypassCSP", enabled=False)
        self.addCleanup(self.window.open, "about:blank")
        self.page()

    def page(self, host="127.0.0.1", server="router", bypass=True):
        """Opens one of the cluster, which has the policy of the chat page unless that is bypassed."""
        self.window.cdp("Page.setBypassCSP", enabled=bypass)
        self.window.open(f"http://{host}:{self.cluster.ports[server]}/favicon.svg")

    def connect(self, **options):
        """What a client of a new user was told."""
        Located.users += 1
        self.user = f"user-{Located.users}"
        self.before = self.proxied()
        options = {"url": self.cluster.ws, "user": self.user, "locatesNode": True, **options}
        told = self.window.asynchronous(CONNECT, options)
        self.assertEqual(told["fate"], "stored", told)
        return told

    def proxied(self):
        """WebSockets that came to the router."""
        _, metrics = http(f"http://127.0.0.1:{self.cluster.internal_ports['router']}/metrics")
        counts = re.findall(r"^martlet_router_(?:handovers|upgrades)_total\S* (\d+)$", metrics.decode(), re.M)
        return sum(map(int, counts))

    def check_straight(self, told):
        self.assertEqual(told["states"], ["connecting", "online"])
        self.assertEqual(self.proxied() - self.before, 0, "nobody came to the router for a WebSocket")

    def check_through_router(self, told, states=("connecting", "online")):
        self.assertEqual(told["states"], [*states])
        wait_until("it came through the router", lambda: self.proxied() - self.before == 1)

    def test_it_connects_to_its_node_without_the_router(self):
        self.start(ITSELF, ("node-a", "node-b"))
        for _ in range(3):
            told = self.connect()
            _, answer = http(f"{self.cluster.url}/locate?user={self.user}")
            self.assertEqual(told["node"].split(".")[0], json.loads(answer)["node"])
            self.check_straight(told)
        self.check_through_router(self.connect(locatesNode=False))

    def test_with_a_token_it_comes_to_its_users_node_through_the_router_and_without(self):
        secret = "only for the browser tests, long enough for all"
        self.start(ITSELF, ("node-a", "node-b"), auth="token", MARTLET_TOKEN_SECRET=secret)
        homes = {}
        for user in ("grüße & co/1", *(f"named-{number}" for number in range(30))):
            _, answer = http(f"{self.cluster.url}/locate?{urlencode({'key': user})}")
            homes.setdefault(json.loads(answer)["node"], user)
        self.assertEqual(len(homes), 2)
        for home, user in homes.items():
            token = self.cluster.mint(user, secret)
            for locates in (False, True):
                told = self.connect(token=token, locatesNode=locates)
                self.assertEqual(told["node"].split(".")[0], home)
                (self.check_straight if locates else self.check_through_router)(told)
            self.assertNotIn(token, self.cluster.log("router"))

    def test_a_page_of_another_origin_asks_where_it_may(self):
        self.start(ITSELF)
        self.page("localhost")
        self.check_straight(self.connect())
        self.cluster.kill("router")
        self.cluster.start_router(MARTLET_ORIGINS="self")
        self.cluster.settle(1)
        self.check_through_router(self.connect())
        self.page()
        self.check_straight(self.connect())

    def test_where_the_policy_of_the_page_forbids_the_nodes_address_it_goes_through_the_router(self):
        self.start(ITSELF)
        self.page(bypass=False)
        self.check_through_router(self.connect())

    def test_where_nobody_listens_at_the_nodes_address_it_goes_through_the_router(self):
        self.start(f"ws://127.0.0.1:{free_port()}/ws")
        self.check_through_router(self.connect())

    def test_where_the_nodes_address_does_not_answer_it_goes_through_the_router_after_two_seconds(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            self.start(f"ws://127.0.0.1:{silent.getsockname()[1]}/ws")
            told = self.connect()
        self.check_through_router(told)
        self.assertGreaterEqual(told["seconds"], 1.9)
        self.assertLess(told["seconds"], 9)

    def test_where_the_nodes_address_serves_no_chat_the_next_attempt_goes_through_the_router(self):
        with serve(lambda peer: peer.close(4000, "not here"), "127.0.0.1", 0, subprotocols=["martlet.v1.json"]) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            self.start(f"ws://127.0.0.1:{other.socket.getsockname()[1]}/ws")
            self.check_through_router(self.connect(), ("connecting", "waiting", "connecting", "online"))
            other.shutdown()

    def test_where_nodes_have_no_address_it_goes_through_the_router(self):
        self.start("")
        self.check_through_router(self.connect())

    def test_where_nobody_knows_the_question_it_connects_to_whom_it_asked(self):
        # A router of before the question passes it on to a node, which has no such page either.
        self.start(ITSELF)
        port = self.cluster.ports["node-a"]
        self.assertEqual(http(f"http://127.0.0.1:{port}/locate?user=alice")[0], 404)
        for server in ("router", "node-a"):
            self.page(server=server)
            told = self.connect(url=f"ws://127.0.0.1:{port}/ws")
            self.assertEqual(told["states"], ["connecting", "online"])
