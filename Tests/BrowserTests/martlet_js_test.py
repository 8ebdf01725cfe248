"""martlet.js against a socket that the test holds in its hands: order, repeats, holes, resends, closing codes."""

import pathlib
import unittest

import shared

SCENARIOS = (pathlib.Path(__file__).parent / "martlet_js_scenarios.js").read_text()


class MartletJS(unittest.TestCase):
    def test_scenarios(self):
        window = shared.window("martlet.js")
        window.open(shared.cluster.url + "/favicon.svg")
        results = window.asynchronous(SCENARIOS)
        self.assertGreater(len(results), 10)
        for name, failure in results:
            with self.subTest(name):
                self.assertIsNone(failure)
