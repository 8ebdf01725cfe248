"""The chat page through https:// and wss://, as `martlet dev --tls` serves it."""

import base64
import hashlib
import json
import pathlib
import shutil
import ssl
import subprocess
import tempfile
import unittest
import urllib.request

from cluster import MARTLET, clean_environment, free_port, wait_until
from webdriver import Browser


def key_hash(certificate):
    """What Chromium knows a certificate's key by."""
    key = subprocess.run(["openssl", "x509", "-in", certificate, "-noout", "-pubkey"], check=True, capture_output=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=key, check=True, capture_output=True).stdout
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


class SecurePage(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="martlet-tls-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.port = free_port(in_a_row=2)
        log = open(self.folder / "log", "wb")
        self.addCleanup(log.close)
        self.dev = subprocess.Popen([MARTLET, "dev", "--tls", "--nodes", "1", "--port", str(self.port)], cwd=self.folder,
                                    env={**clean_environment(), "MARTLET_INTERNAL_PORT": str(free_port(in_a_row=2))},
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(self.end)
        self.authority = self.folder / ".martlet/tls/ca.pem"
        wait_until("dev is ready", self.is_ready, 40)

    def is_ready(self):
        said = (self.folder / "log").read_text(errors="replace")
        self.assertIsNone(self.dev.poll(), f"dev ended and said: {said}")
        return "Ctrl-C ends it all" in said

    def end(self):
        self.dev.terminate()
        self.dev.wait(20)

    def test_two_windows_chat_through_tls(self):
        url = f"https://localhost:{self.port}"
        trusting = ssl.create_default_context(cafile=self.authority)
        with urllib.request.urlopen(f"{url}/readyz", timeout=5, context=trusting) as answer:
            self.assertEqual(answer.status, 200)
        certificate = self.folder / ".martlet/tls/localhost.pem"
        browser = Browser(arguments=[f"--ignore-certificate-errors-spki-list={key_hash(certificate)}"])
        self.addCleanup(browser.close)
        windows = [browser.first_window(), browser.new_window()]
        for window, user in zip(windows, ["alice", "bob"]):
            window.open(f"{url}/?room=secure&user={user}")
            window.wait("the form is filled in", f"document.querySelector('#user').value === {json.dumps(user)}")
            window.press("enter")
            window.wait("the room is open", "document.documentElement.dataset.connection === 'online'")
            self.assertTrue(window.script("return isSecureContext"))
        for sender, other, text in [(*windows, "through TLS"), (*reversed(windows), "and back")]:
            sender.script("document.querySelector('#input').focus()")
            sender.type("#input", text)
            sender.press("enter")
            for window in (sender, other):
                window.wait(f"the window shows “{text}”", "[...document.querySelectorAll('.messages .text')].some((line) => "
                            "line.textContent === arguments[0])", 15, text)
        self.assertEqual(browser.console_errors(), [])
