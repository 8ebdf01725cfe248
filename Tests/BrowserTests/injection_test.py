"""Names, rooms, statuses and reasons that try to become a part of the chat page."""

import json
import unittest
import urllib.parse

from websockets.sync.client import connect

import shared
from chat_page_test import enter, shows

MARKUP = "<img src=x onerror=\"document.title='owned'\"><svg onload=\"document.title='owned'\"><b>x</b>"
# What could run, or look like more than text, in what the page shows.
FOREIGN = "document.querySelectorAll('img:not(.mark, .brand img), b, iframe, object, embed, [onerror], [onload], [onclick], script:not([src])').length"


class Injection(unittest.TestCase):
    def setUp(self):
        shared.cluster.settle()
        self.window = shared.window("injection")

    def tearDown(self):
        self.window.open("about:blank")
        shared.browser.console_errors()

    def check(self):
        self.assertEqual(self.window.script(f"return {FOREIGN}"), 0)
        self.assertNotIn("owned", self.window.script("return document.title"))
        schemes = self.window.script("return [...document.querySelectorAll('a[href], link[href], script[src]')].map((e) => "
                                     "new URL(e.href || e.src).protocol)")
        self.assertLessEqual(set(schemes), {"http:", "https:"})

    def test_what_another_user_is_called_and_says_is_text(self):
        """T13: a user's name, display name, text, data and typing are shown as text."""
        enter(self.window, "reader", "injection")
        user = MARKUP[:120]
        with connect(f"{shared.cluster.ws}?user={urllib.parse.quote(user)}") as other:
            info = {"name": MARKUP, "avatar": "javascript:document.title='owned'"}
            for message in (
                {"type": "auth", "user": user, "info": info},
                {"type": "join", "room": "injection"},
                {"type": "typing", "room": "injection", "typing": True},
                {"type": "message", "room": "injection", "text": MARKUP, "data": {"html": MARKUP}, "id": "1"},
                {"type": "message", "room": "injection", "id": "2",
                 "text": "javascript:alert(1) data:text/html,<script>alert(1)</script> https://a.example/\"onclick=\"x"},
                {"type": "status", "status": "away"},
            ):
                other.send(json.dumps(message))
            while json.loads(other.recv(timeout=10)).get("id") != "2":
                pass
            shows(self.window, MARKUP)
            self.window.wait("the other one is listed", "document.querySelectorAll('.person').length === 2")
            self.check()
        self.window.wait("the other one left", "document.querySelectorAll('.person').length === 1")
        self.check()

    def test_what_the_address_of_the_page_says_is_text(self):
        """T13: the query of the page's own address is shown as text."""
        quoted = urllib.parse.quote(MARKUP)
        self.window.open("about:blank")
        self.window.open(f"{shared.cluster.url}/?room={quoted}&user={quoted}&token={quoted}#{quoted}")
        self.window.wait("the page is there", "document.querySelector('#user')")
        self.check()

    def test_the_policy_stops_a_script_that_got_in_all_the_same(self):
        """T13: an inline script in the page does not run, and nothing is loaded from elsewhere."""
        self.window.open(shared.cluster.url + "/")
        self.window.wait("the page is there", "document.querySelector('#user')")
        violated = self.window.asynchronous("""
            const done = arguments[arguments.length - 1];
            const violated = new Set();
            document.addEventListener('securitypolicyviolation', (event) => {
              violated.add(event.effectiveDirective);
              if (violated.size === 3) done([...violated].sort());
            });
            setTimeout(() => done([...violated].sort()), 10000);
            const script = document.createElement('script');
            script.textContent = "document.title = 'owned'";
            document.body.append(script);
            const div = document.createElement('div');
            div.innerHTML = "<img src=x onerror=\\"document.title = 'owned'\\">";
            document.body.append(div);
            fetch('http://elsewhere.example/').catch(() => {});
        """)
        self.assertEqual(violated, ["connect-src", "script-src-attr", "script-src-elem"])
        self.assertNotIn("owned", self.window.script("return document.title"))
