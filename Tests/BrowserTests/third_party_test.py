"""Other people's WebSocket clients talk to the cluster: Python's `websockets`, and Chromium's own without subprotocol."""

import json
import unittest

from websockets.sync.client import connect

import shared


def receive(socket, kind, **fields):
    """The next frame of a type with these fields; others are passed over."""
    while True:
        frame = json.loads(socket.recv(timeout=10))
        if frame["type"] == kind and all(frame.get(key) == value for key, value in fields.items()):
            return frame


class PythonWebSockets(unittest.TestCase):
    def test_without_a_subprotocol_a_client_joins_talks_and_reads_history(self):
        with connect(f"{shared.cluster.ws}?user=py-anna") as anna, connect(f"{shared.cluster.ws}?user=py-ben") as ben:
            self.assertIsNone(anna.subprotocol)
            for socket in (anna, ben):
                self.assertEqual(receive(socket, "welcome")["protocol"], "martlet.v1")
                socket.send(json.dumps({"type": "join", "room": "third-party", "id": "1"}))
                self.assertEqual(receive(socket, "joined", id="1")["room"], "third-party")
            anna.send(json.dumps({"type": "message", "room": "third-party", "text": "héllo 🐦", "id": "m-1"}))
            ack = receive(anna, "ack", id="m-1")
            message = receive(ben, "message", room="third-party")
            self.assertEqual((message["text"], message["from"], message["seq"]), ("héllo 🐦", "py-anna", ack["seq"]))
            ben.send(json.dumps({"type": "history", "room": "third-party", "id": "h"}))
            self.assertEqual(receive(ben, "history", id="h")["messages"][-1]["text"], "héllo 🐦")

    def test_the_subprotocol_is_accepted_when_it_is_offered(self):
        with connect(f"{shared.cluster.ws}?user=py-cleo", subprotocols=["martlet.v1.json"]) as socket:
            self.assertEqual(socket.subprotocol, "martlet.v1.json")
            receive(socket, "welcome")

    def test_auth_may_come_as_the_first_message(self):
        with connect(shared.cluster.ws) as socket:
            socket.send(json.dumps({"type": "auth", "user": "py-dora", "id": "a"}))
            self.assertEqual(receive(socket, "welcome")["user"], "py-dora")

    def test_compression_offered_and_large_messages_do_no_harm(self):
        with connect(f"{shared.cluster.ws}?user=py-eli", compression="deflate") as socket:
            receive(socket, "welcome")
            socket.send(json.dumps({"type": "join", "room": "third-party", "id": "j"}))
            receive(socket, "joined", id="j")
            socket.send(json.dumps({"type": "message", "room": "third-party", "text": "x" * 60_000, "id": "big"}))
            receive(socket, "ack", id="big")

    def test_what_is_not_json_is_a_numbered_error_and_harms_nobody(self):
        with connect(f"{shared.cluster.ws}?user=py-finn") as socket:
            receive(socket, "welcome")
            socket.send("not json")
            self.assertEqual(receive(socket, "error")["code"], 100)
            socket.send(json.dumps({"type": "ping", "id": "p"}))
            receive(socket, "pong", id="p")


class ChromiumWebSocket(unittest.TestCase):
    def test_the_browsers_own_socket_without_subprotocol(self):
        window = shared.window("third-party")
        window.open(shared.cluster.url + "/favicon.svg")
        frames = window.asynchronous("""
            const done = arguments[arguments.length - 1];
            const socket = new WebSocket(`ws://${location.host}/ws?user=chrome`);
            const frames = [];
            const say = (frame) => socket.send(JSON.stringify({ room: "third-party", ...frame }));
            socket.onmessage = ({ data }) => {
              const frame = JSON.parse(data);
              frames.push(frame);
              if (frame.type === "welcome") say({ type: "join", id: "1" });
              if (frame.type === "joined") say({ type: "message", text: "from the browser", id: "2" });
              if (frame.type === "ack") done([socket.protocol, ...frames]);
            };
            socket.onclose = ({ code }) => done(["closed", code, ...frames]);
            setTimeout(() => done(["nothing more came", ...frames]), 15000);
        """)
        self.assertEqual(frames[0], "", frames)
        kinds = [frame["type"] for frame in frames[1:]]
        self.assertEqual(kinds[0], "welcome")
        self.assertIn("joined", kinds)
        self.assertEqual(kinds[-1], "ack")
