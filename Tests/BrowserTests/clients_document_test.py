"""The JavaScript example of docs/clients.md, in Chromium, and in Node where there is one with a WebSocket."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import shared

EXAMPLE = (shared.ROOT / "docs" / "clients.md").read_text().split("```js\n")[1].split("```")[0]
ADDRESS = '"ws://127.0.0.1:8080/ws"'
IMPORT = 'import { Martlet } from "./martlet.js";\n'
PARTS = ("online", "alice", "stored as", "closed")


def node_with_websocket():
    """The command that runs a module in Node, or None."""
    if shutil.which("node"):
        for command in (["node"], ["node", "--experimental-websocket", "--no-warnings"]):
            ask = [*command, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
            if subprocess.run(ask, capture_output=True).returncode == 0:
                return command
    return None


class ClientsDocument(unittest.TestCase):
    def example(self):
        self.assertIn(ADDRESS, EXAMPLE)
        self.assertIn(IMPORT, EXAMPLE)
        return EXAMPLE.replace(ADDRESS, json.dumps(shared.cluster.ws))

    def test_the_example_runs_in_a_page(self):
        window = shared.window("clients")
        window.open(shared.cluster.url + "/favicon.svg")
        said = window.asynchronous("""
            const done = arguments[arguments.length - 1];
            const said = [];
            const log = (...words) => said.push(words.join(" "));
            const console = { log, error: log };
            (async () => {
        """ + self.example().replace(IMPORT, 'const { Martlet } = await import("/martlet.js");\n') + """
            })().then(() => done(said), (error) => done([`${error.stack}`]));""")
        for part in PARTS:
            self.assertIn(part, "\n".join(said))

    def test_the_example_runs_in_node(self):
        command = node_with_websocket()
        if not command:
            self.skipTest("there is no Node with a WebSocket here")
        with tempfile.TemporaryDirectory() as folder:
            files = {
                "package.json": '{"type": "module"}',
                "martlet.js": (shared.ROOT / "Sources" / "WebAssets" / "Assets" / "martlet.js").read_text(),
                "example.js": self.example(),
            }
            for name, text in files.items():
                pathlib.Path(folder, name).write_text(text)
            ran = subprocess.run([*command, "example.js"], cwd=folder, capture_output=True, text=True, timeout=60)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        for part in PARTS:
            self.assertIn(part, ran.stdout)
