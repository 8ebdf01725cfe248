"""martlet.js against a socket that the test holds in its hands: order, repeats, holes, resends, closing codes."""

import pathlib
import unittest

import shared

HERE = pathlib.Path(__file__).parent


class MartletJS(unittest.TestCase):
    def test_rooms(self):
        self.play("martlet_js_scenarios.js")

    def test_connection(self):
        self.play("martlet_js_connection.js")

    def test_locate(self):
        self.play("martlet_js_locate.js")

    def test_token(self):
        self.play("martlet_js_token.js")

    def play(self, name):
        window = shared.window("martlet.js")
        window.open(shared.cluster.url + "/favicon.svg")
        results = window.asynchronous((HERE / "martlet_js_fake.js").read_text() + (HERE / name).read_text())
        self.assertGreater(len(results), 5)
        for name, failure in results:
            with self.subTest(name):
                self.assertIsNone(failure)
