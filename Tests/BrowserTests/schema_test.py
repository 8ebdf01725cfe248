"""The JSON Schema that nodes serve, by the validator `jsonschema`: the examples of the docs and what a real node sends are
valid, and whatever it refuses a node refuses too."""

import copy
import json
import re
import signal
import unittest

from jsonschema import Draft202012Validator
from websockets.sync.client import connect

import shared
from cluster import http

# What a node calls wrong in a frame by itself, whatever was said before.
FORM = {100, 101, 102, 108, 109}


def closed(schema):
    """The schema without leave for unknown fields, so that a misspelt or forgotten one is seen."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
    elif isinstance(schema, list):
        schema = [closed(value) for value in schema]
    return schema


def examples():
    """Each JSON example of the documents: direction (> from a client, < from a server, ? either) and text."""
    for file in [shared.ROOT / "README.md", *sorted((shared.ROOT / "docs").rglob("*.md"))]:
        text = file.read_text()
        for mark, example in re.findall(r"^([<>]) (\{.*)$", text, re.M):
            yield mark, example
        for example in re.findall(r"`(\{\"type\":[^`]*\})`", text):
            if not example.endswith("…}"):
                yield "?", example
        for example in re.findall(r"json\.dumps\((\{.*?\})\)", text):
            yield ">", example


WRONG = [
    ">{}",
    '>{"type":"shout","room":"general"}',
    '>{"type":"message","room":"general"}',
    '>{"type":"message","room":"general","text":5}',
    '>{"type":"message","room":"general","text":null}',
    '>{"type":"message","room":"general","binary":"AA"}',
    '>{"type":"message","room":"general","binary":"AB=="}',
    '>{"type":"message","room":"general","binary":"_-8="}',
    '>{"type":"message","room":"no spaces","text":"hi"}',
    '>{"type":"message","room":"dm:alice","text":"hi"}',
    '>{"type":"message","room":"general","text":"hi","id":""}',
    '>{"type":"message","room":"general","text":"hi","id":7}',
    f'>{{"type":"message","room":"general","text":"hi","id":"{"i" * 65}"}}',
    f'>{{"type":"join","room":"{"r" * 129}"}}',
    '>{"type":"join"}',
    '>{"type":"join","rooms":[]}',
    '>{"type":"join","rooms":["general"]}',
    '>{"type":"join","room":"general","rooms":[{"room":"random"}]}',
    '>{"type":"join","room":"general","since":{"seq":1}}',
    '>{"type":"join","room":"general","since":{"epoch":"e","seq":-1}}',
    '>{"type":"join","room":"general","since":{"epoch":"e","seq":9007199254740993}}',
    '>{"type":"join","room":"general","echo":"yes"}',
    '>{"type":"direct","text":"psst"}',
    '>{"type":"direct","to":"a\\u0000b","text":"psst"}',
    '>{"type":"history","room":"general","limit":0}',
    '>{"type":"history","room":"general","limit":101}',
    '>{"type":"history","room":"general","before":1,"after":1}',
    '>{"type":"status"}',
    '>{"type":"status","status":"sleepy"}',
    '>{"type":"typing","room":"general","typing":"yes"}',
    '>{"type":"auth","user":""}',
    '>{"type":"auth","user":"schema-wrong","client":"not allowed"}',
    '>{"type":"auth","user":"schema-wrong","info":[]}',
    '>{"type":"auth","user":"schema-wrong","resume":{"session":"short","secret":"s"}}',
    '>{"type":"auth","user":"schema-wrong","directs":{"since":-1}}',
    '>{"type":"auth","user":"schema-wrong","directs":{"since":1,"rooms":[{"room":"dm:a:b"}]}}',
    '<{"type":"welcome"}',
    '<{"type":"error","code":999,"reason":"malformed_json","message":""}',
    '<{"type":"error","code":100,"reason":"unknown_type","message":""}',
    '<{"type":"ack","id":"1"}',
    '<{"type":"ack","id":"1","room":"general","seq":0,"ts":1}',
    '<{"type":"ack","id":"1","room":"general","seq":1,"ts":1,"tag":"a","status":"busy"}',
    '<{"type":"message","room":"general","seq":1,"tag":"a","from":"bob","ts":1}',
    '<{"type":"presence","room":"general","count":1,"pv":1}',
    '<{"type":"presence","room":"general","members":[{"user":"bob","status":"invisible"}],"count":1,"pv":1}',
    '<{"type":"auth","user":"alice"}',
]


class Talk:
    """One connection, which validates all that it gets."""

    def __init__(self, validator, query, url=None):
        self.validator = validator
        self.socket = connect(f"{url or shared.cluster.ws}?{query}")
        self.seen = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self, **frame):
        self.raw(json.dumps(frame))

    def raw(self, text):
        self.socket.send(text)

    def until(self, kind, **fields):
        while True:
            frame = json.loads(self.socket.recv(timeout=10))
            self.validator.validate(frame)
            self.seen.add(frame["type"])
            if frame["type"] == kind and all(frame.get(key) == value for key, value in fields.items()):
                return frame


class Schema(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        status, body = http(shared.cluster.url + "/protocol/schema.json")
        assert status == 200, status
        cls.schema = json.loads(body)
        Draft202012Validator.check_schema(cls.schema)
        strict = closed(cls.schema)
        cls.open = {mark: cls.part(cls.schema, mark) for mark in "<>?"}
        cls.strict = {mark: cls.part(strict, mark) for mark in "<>?"}

    @staticmethod
    def part(schema, mark):
        """A validator for one direction."""
        schema = {key: value for key, value in schema.items() if key != "anyOf"}
        both = [{"$ref": "#client"}, {"$ref": "#server"}]
        return Draft202012Validator(schema | {"anyOf": {">": both[:1], "<": both[1:], "?": both}[mark]})

    def test_every_example_of_the_docs_is_valid_with_no_field_that_the_schema_does_not_know(self):
        count = 0
        for mark, example in examples():
            with self.subTest(example):
                self.strict[mark].validate(json.loads(example))
                count += 1
        self.assertGreater(count, 40)

    def test_no_example_stays_valid_without_a_required_field_or_with_a_wrong_type(self):
        count = 0
        for mark, example in examples():
            frame = json.loads(example)
            for key in frame:
                wrong = copy.deepcopy(frame)
                wrong[key] = {"wrong": []} if not isinstance(frame[key], dict) else "wrong"
                if key == "data":
                    continue
                with self.subTest(example, key=key):
                    self.assertFalse(self.open[mark].is_valid(wrong))
                    count += 1
        self.assertGreater(count, 200)

    def test_what_the_schema_refuses_of_a_client_a_node_refuses_too(self):
        with Talk(self.strict["<"], "user=schema-wrong") as talk:
            talk.until("welcome")
            for wrong in WRONG:
                with self.subTest(wrong):
                    self.assertFalse(self.open[wrong[0]].is_valid(json.loads(wrong[1:])))
                    if wrong[0] == ">":
                        talk.raw(wrong[1:])
                        self.assertIn(talk.until("error")["code"], FORM)

    def test_what_the_schema_allows_a_client_a_node_understands(self):
        for mark, example in examples():
            if mark != ">":
                continue
            with self.subTest(example), Talk(self.strict["<"], "user=schema-right&resume=1") as talk:
                talk.raw(example.replace("dm:alice:bob", "dm:bob:schema-right"))
                talk.say(type="auth", user="schema-right")
                talk.say(type="ping", id="last")
                while (frame := json.loads(talk.socket.recv(timeout=10)))["type"] != "pong":
                    self.assertNotIn(frame.get("code"), FORM, frame)

    def test_every_frame_of_a_real_node_is_valid_with_no_field_that_the_schema_does_not_know(self):
        cluster, room = shared.cluster, "schema"
        cluster.start_node("node-schema")
        direct = f"ws://127.0.0.1:{cluster.ports['node-schema']}/ws"
        server = self.strict["<"]
        with Talk(server, "user=sch-anna", direct) as anna, Talk(server, "user=sch-ben", direct) as ben:
            anna.say(type="auth", user="sch-anna", id="again")
            anna.until("welcome", id="again")
            for talk in (anna, ben):
                talk.say(type="join", room=room, id="j", echo=talk is ben)
                talk.until("joined", id="j")
            anna.until("presence")
            anna.say(type="message", room=room, text="hé 🐦", data={"a": [1, None]}, id="m")
            anna.until("ack", id="m")
            anna.say(type="message", room=room, text="hé 🐦", data={"a": [1, None]}, id="m")
            position = anna.until("ack", id="m", duplicate=True)
            message = ben.until("message")
            ben.say(type="message", room=room, text="echo", binary="AAEC/w==")
            ben.until("ack")
            ben.until("message")
            ben.say(type="typing", room=room)
            anna.until("typing")
            ben.say(type="status", status="away", id="s")
            ben.until("ack", id="s", status="away")
            while "updated" not in anna.until("presence"):
                pass
            anna.say(type="presence", room=room, id="p")
            anna.until("presence", id="p")
            anna.say(type="direct", to="sch-ben", text="psst", id="d")
            anna.until("ack", id="d")
            ben.until("message", text="psst")
            for talk in (anna, ben):
                talk.say(type="history", room=room, limit=1, id="h")
                talk.until("history", id="h")
            cluster.admin("kick", "sch-ben", "--room", room)
            ben.until("left")
            since = {"epoch": "wrong", "seq": position["seq"]}
            ben.say(type="join", room=room, id="r", since=since)
            ben.until("joined", id="r", recovered=False)
            ben.until("gap")
            ben.until("history")
            ben.say(type="leave", room=room, id="l")
            ben.until("left", id="l")
            anna.say(type="history", room=room, limit=1, id="epoch")
            since = {"epoch": anna.until("history", id="epoch")["epoch"], "seq": position["seq"], "tag": position["tag"]}
            ben.say(type="join", room=room, id="r2", since=since)
            ben.until("joined", id="r2", recovered=True)
            ben.say(type="ping", id="o")
            ben.until("pong", id="o")
            ben.say(type="message", room="nobody", text="x", id="e")
            ben.until("error", id="e", code=111)
            secret = "only for the schema's test, 32 bytes"
            cluster.start_node("node-expiry", auth="token", MARTLET_TOKEN_SECRET=secret)
            brief = cluster.mint("sch-cat", secret, "--hours", str(2 / 3600))
            with Talk(server, f"token={brief}", f"ws://127.0.0.1:{cluster.ports['node-expiry']}/ws") as cat:
                cat.until("token_expiring")
            cluster.signal("node-expiry", signal.SIGKILL)
            cluster.processes["node-schema"].send_signal(signal.SIGTERM)
            ben.until("reconnect")
            kinds = {ref["$ref"].rpartition(".")[2] for ref in self.schema["$defs"]["server"]["oneOf"]}
            self.assertEqual(anna.seen | ben.seen | cat.seen, kinds)
            self.assertEqual(message["from"], "sch-anna")
