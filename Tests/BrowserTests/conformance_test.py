"""martlet.js on a real cluster, through the scenarios that every SDK has to pass (Tests/Conformance)."""

import json
import pathlib
import random
import time
import unittest

from websockets.sync.client import connect

import shared
from line import Line

SCENARIOS = json.loads((shared.ROOT / "Tests" / "Conformance" / "scenarios.json").read_text())["scenarios"]
PAGE = (pathlib.Path(__file__).parent / "conformance.js").read_text()
PATIENCE = 60


class Conformance(unittest.TestCase):
    def setUp(self):
        shared.cluster.settle()
        self.window = shared.window("conformance")
        self.window.cdp("Page.setBypassCSP", enabled=True)  # each client has a line of its own, so a port of its own
        self.window.open(shared.cluster.url + "/favicon.svg")
        self.addCleanup(self.window.open, "about:blank")
        self.addCleanup(self.window.cdp, "Page.setBypassCSP", enabled=False)

    def play(self, scenario):
        play = Play(self.window, scenario)
        try:
            for step in scenario["steps"]:
                play.step(step)
            play.check_order()
        finally:
            play.end()

    def test_when_the_line_is_back_a_dead_connection_and_a_hung_attempt_are_given_up_at_once(self):
        steps = [{"client": "bob", "do": do, "rooms": ["r"]} for do in ("connect", "join")]
        play = Play(self.window, {"steps": steps})
        online = "dispatchEvent(new Event('online'))"
        state = "window.conformance.bob.chat.state"
        try:
            for step in (*steps, {"client": "bob", "expect": "joined", "room": "r"}):
                play.step(step)
            play.lines["bob"].silent = True
            self.window.script(online)
            # What was on its way is no sign of life.
            play.say_direct("alice" + play.suffix, "bob" + play.suffix, ["on its way"])
            play.step({"client": "bob", "expect": "messages", "room": "dm", "texts": ["on its way"]})
            self.window.wait("the dead connection is given up", f"{state} === 'connecting'", 5)
            attempts = len(play.record("bob")["states"])
            time.sleep(1.5)  # so long the attempt hangs
            play.lines["bob"].silent = False
            self.window.script(online)
            self.window.wait("a new attempt gets through", f"{state} === 'online'", 3)
            self.assertEqual(play.record("bob")["states"][attempts:], ["connecting", "online"])
            play.step({"client": "bob", "expect": "joined", "room": "r", "times": 2, "recovered": True})
        finally:
            play.end()

    def test_a_session_is_resumed_after_a_cut_and_after_the_kill_of_its_node(self):
        actions = ("connect", "join")
        people = [{"client": name, "do": do, "rooms": ["r"]} for name in ("alice", "bob") for do in actions]
        joined = {"client": "bob", "expect": "joined", "room": "r"}
        play = Play(self.window, {"steps": people})
        try:
            for step in (*people, joined, {"client": "alice", "expect": "joined", "room": "r"}):
                play.step(step)
            first = play.place("bob")
            for times, trouble in ((2, "cut"), (3, "kill the node")):
                play.step({"client": "bob", "do": trouble})
                count = 10 * times - 10
                lines = {"room": "r", "count": 10, "text": "m", "from": count - 9}
                play.step({"client": "alice", "do": "send", **lines})
                play.step({**joined, "times": times, "recovered": True})
                play.step({"client": "bob", "expect": "messages", "room": "r", "count": count, "text": "m"})
                self.assertEqual(play.place("bob")[1], first[1], "it is the same session")
            self.assertNotEqual(play.place("bob")[0], first[0], "on another node")
            play.step({"client": "alice", "expect": "nobody left", "room": "r"})
            play.check_order()
        finally:
            play.end()


def named(number, scenario):
    def test(self):
        self.play(scenario)

    test.__name__ = f"test_{number + 1:02}_" + "".join(c if c.isalnum() else "_" for c in scenario["name"])
    return test


for test in [named(number, scenario) for number, scenario in enumerate(SCENARIOS)]:
    setattr(Conformance, test.__name__, test)


def texts(step):
    """What a step sends or expects: `texts`, `count` numbered ones, or one of a `length`."""
    first = step.get("from", 1)
    if "count" in step:
        return [f"{step['text']} {number}" for number in range(first, first + step["count"])]
    return ["x" * step["length"]] if "length" in step else step["texts"]


class Play:
    """One scenario, with users and rooms that no other has."""

    def __init__(self, window, scenario):
        self.window = window
        self.suffix = f"-{random.randrange(2**32):08x}"
        self.lines = {}
        self.killed = []
        self.node = None
        port = shared.cluster.ports["router"]
        settings = dict(scenario.get("node", {}))
        if settings:
            self.node = f"conformance{self.suffix}"
            shared.cluster.start_node(self.node, settings.get("MARTLET_AUTH", "none"), **settings)
            port = shared.cluster.ports[self.node]
        self.port = port
        people = {}
        for step in scenario["steps"]:
            if "client" in step:
                people.setdefault(step["client"], {"user": step["client"]}).update(
                    {key: step[key] for key in ("user", "token", "tokens") if key in step})
        try:
            failure = window.asynchronous(PAGE, [self.options(name, who, settings) for name, who in people.items()])
            assert failure is None, failure
        except BaseException:
            self.end()
            raise

    def options(self, name, who, settings):
        line = self.lines[name] = Line(self.port)
        options = {"name": name, "url": f"ws://127.0.0.1:{line.port}/ws", "user": who["user"] + self.suffix}
        if "tokens" in who:
            options["tokens"] = [token if token is None else self.mint(token, options["user"], settings)
                                 for token in who["tokens"]]
        elif who.get("token") == "good":
            options["token"] = shared.cluster.mint(options["user"], settings["MARTLET_TOKEN_SECRET"])
        elif "token" in who:
            options["token"] = "eyJ.x.y"
        return options

    def mint(self, token, user, settings):
        wanted = []
        if "seconds" in token:
            wanted += ["--hours", str(token["seconds"] / 3600)]
        if "rooms" in token:
            wanted += ["--rooms", json.dumps({self.room(room): may for room, may in token["rooms"].items()})]
        return shared.cluster.mint(user, settings["MARTLET_TOKEN_SECRET"], *wanted)

    def end(self):
        self.window.script("for (const { chat } of Object.values(window.conformance ?? {})) chat.close()")
        for line in self.lines.values():
            line.close()
        for node in self.killed:
            shared.cluster.start_node(node)
        if self.node:
            shared.cluster.kill(self.node)

    def room(self, name):
        return name + self.suffix if name else name

    def place(self, client):
        """The node and the session."""
        source = "const { node, session } = window.conformance[arguments[0]].chat; return [node, session]"
        return self.window.script(source, client)

    def record(self, client):
        return self.window.script("return window.conformance[arguments[0]].record", client)

    def step(self, step):
        if "expect" in step:
            return self.expect(step)
        match step["do"]:
            case "cut":
                self.lines[step["client"]].cut()
            case "block":
                self.lines[step["client"]].block()
            case "unblock":
                self.lines[step["client"]].blocked = False
            case "kill the node":
                node = self.window.script("return window.conformance[arguments[0]].chat.node", step["client"])
                self.killed.append(node)
                shared.cluster.kill(node)
            case "direct":
                self.say_direct(step["from"] + self.suffix, step["client"] + self.suffix, step["texts"])
            case _:
                self.act(step)

    def act(self, step):
        rooms = [self.room(name) for name in step.get("rooms", [])]
        asked = {**step, "room": self.room(step.get("room")), "rooms": rooms}
        if step["do"] == "send":
            asked["texts"] = texts(step)
            asked["to"] = self.room(step.get("to"))
        refusal = self.window.script("return window.conformance[arguments[0]].act(arguments[1])", step["client"], asked)
        assert (refusal is not None) == step.get("refused", False), f"{step}: {refusal or 'not refused'}"

    def say_direct(self, user, to, lines):
        with connect(f"ws://127.0.0.1:{self.port}/ws?user={user}") as sender:
            for number, text in enumerate(lines):
                sender.send(json.dumps({"type": "direct", "to": to, "text": text, "id": str(number)}))
                while json.loads(sender.recv(timeout=20))["type"] != "ack":
                    pass

    def expect(self, step):
        end = time.monotonic() + PATIENCE
        while (seen := self.seen(step)) is not None:
            if time.monotonic() > end:
                raise AssertionError(f"not within {PATIENCE} s: {step}; seen: {seen}")
            time.sleep(0.05)

    def seen(self, step):
        """None when it is as the step expects."""
        record = self.record(step["client"])
        room = self.room(step.get("room"))
        def is_here(name):
            return (name or "").startswith("dm:") if step.get("room") == "dm" else name == room
        match step["expect"]:
            case "state":
                return None if record["states"][-1:] == [step["state"]] else record["states"]
            case "messages":
                seen = [text for name, _, text in record["messages"] if is_here(name)]
                expected = texts(step)
                assert seen == expected[:len(seen)], f"{step}; seen: {seen}"
                return None if seen == expected else seen
            case "joined":
                seen = [recovered for name, recovered in record["joined"] if name == room]
                enough = len(seen) >= step.get("times", 1)
                return None if enough and seen[-1] == step.get("recovered", seen[-1]) else seen
            case "gap":
                gaps = [gap[1:] for gap in record["gaps"] if is_here(gap[0])]
                return None if [step["from"], step["to"]] in gaps else record["gaps"]
            case "fates":
                seen = [fate for name, fate in record["fates"] if is_here(name)]
                expected = {fate: step.get(fate, 0) for fate in ("acked", "failed", "unknown")}
                return None if {fate: seen.count(fate) for fate in expected} == expected else seen
            case "members":
                expected = {user + self.suffix: status for user, status in step["members"].items()}
                seen = record["members"].get(room)
                return None if seen == expected else seen or "no list"
            case "expiring":
                return None if record["expiring"] >= step.get("times", 1) else record["expiring"]
            case "one connection":
                return None if record["states"].count("online") == 1 else record["states"]
            case "left":
                return None if room in record["out"] else record["out"]
            case "nobody left":
                return [user for name, user in record["left"] if name == room] or None
            case "typing":
                seen = record["typing"].get(room, [])
                return None if seen == [user + self.suffix for user in step["users"]] else seen or "nobody"
            case other:
                raise AssertionError(f"no expectation is called {other}")

    def check_order(self):
        """No client may be told a message twice, or one before its predecessor."""
        for client in self.lines:
            last = {}
            for room, seq, text in self.record(client)["messages"]:
                assert seq > last.get(room, 0), f"{client} got “{text}” ({seq}) after {last[room]}"
                last[room] = seq
