"""`martlet chat` on the same cluster: as a filter in a pipe, and on a terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import time
import unittest

import shared
from chat_page_test import node_of, two_users_on_two_nodes
from cluster import MARTLET, clean_environment, free_port, http, wait_until


class Piped:
    """A chat whose lines come from and go to pipes."""

    def __init__(self, user, room, *options):
        self.process = subprocess.Popen(
            [MARTLET, "chat", "--url", shared.cluster.ws, "--user", user, *options, room], env=clean_environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
        self.lines = []
        threading.Thread(target=lambda: self.lines.extend(iter(self.process.stdout.readline, "")), daemon=True).start()

    def say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def said(self):
        """What was said, without the time: (user, text)."""
        matches = [re.match(r"\[\d\d:\d\d\] (.+?): (.*)\n", line) for line in self.lines]
        return [match.groups() for match in matches if match]

    def expect(self, user, text, seconds=20):
        wait_until(f"{user} says {text}", lambda: (user, text) in self.said(), seconds)

    def expect_line(self, part, seconds=20):
        wait_until(f"a line with {part}", lambda: any(part in line for line in self.lines), seconds)

    def end(self):
        self.process.stdin.close()
        code = self.process.wait(40)
        self.process.stderr.close()
        return code


class TerminalChat(unittest.TestCase):
    def setUp(self):
        shared.cluster.settle()

    def read(self, terminal, shown, until, seconds=15):
        """Adds to `shown` what comes on the terminal, until it has `until`."""
        end = time.monotonic() + seconds
        while until not in shown.decode(errors="replace"):
            self.assertLess(time.monotonic(), end, f"not shown: {until!r} in {shown.decode(errors='replace')!r}")
            if select.select([terminal], [], [], 0.1)[0]:
                shown.extend(os.read(terminal, 65536))

    def tearDown(self):
        for name, process in shared.cluster.processes.items():
            if name.startswith("node-") and process.poll() is not None:
                shared.cluster.start_node(name)

    def test_in_a_pipe_lines_go_in_and_come_out_and_the_end_waits_for_the_acks(self):
        listener = Piped("listener", "pipe")
        listener.expect_line("here: listener")
        lines = "".join(f"line {number}\n" for number in range(50))
        talker = subprocess.run([MARTLET, "chat", "--url", shared.cluster.ws, "--user", "talker", "pipe"],
                                env=clean_environment(), input=lines, capture_output=True, text=True, timeout=60)
        self.assertEqual((talker.returncode, talker.stderr), (0, ""))
        self.assertEqual(len(re.findall(r"talker: line \d+\n", talker.stdout)), 50)
        listener.expect("talker", "line 49")
        self.assertEqual(listener.said(), [("talker", f"line {number}") for number in range(50)])
        self.assertIn("+ talker is here\n", listener.lines)
        listener.expect_line("- talker left")
        self.assertEqual(listener.end(), 0)

    def test_many_lines_in_a_pipe_keep_their_order_and_the_pace_that_the_server_asks_for(self):
        shared.cluster.start_node("slow-node", MARTLET_LIMIT_MESSAGES_PER_SECOND="100", MARTLET_LIMIT_MESSAGES_BURST="30")
        self.addCleanup(shared.cluster.kill, "slow-node")
        port = shared.cluster.ports["slow-node"]
        lines = [f"line {number}" for number in range(600)]
        talker = subprocess.run(
            [MARTLET, "chat", "--url", f"ws://127.0.0.1:{port}/ws", "--user", "talker", "many"], env=clean_environment(),
            input="\n".join(lines), capture_output=True, text=True, timeout=60)
        self.assertEqual((talker.returncode, talker.stderr), (0, ""))
        self.assertEqual(re.findall(r"talker: (line \d+)\n", talker.stdout), lines)
        internal = shared.cluster.internal_ports["slow-node"]
        metrics = http(f"http://127.0.0.1:{internal}/metrics")[1].decode()
        self.assertRegex(metrics, r"(?m)^martlet_rate_limited_total\S* 0$")

    def test_in_a_pipe_every_line_is_a_message_also_the_last_one_and_one_with_a_slash(self):
        talker = subprocess.run([MARTLET, "chat", "--url", shared.cluster.ws, "--user", "talker", "slash"],
                                env=clean_environment(), input="/quit\n//x\n\n/etc is full", capture_output=True,
                                text=True, timeout=60)
        self.assertEqual((talker.returncode, talker.stderr), (0, ""))
        self.assertEqual(re.findall(r"talker: (.*)\n", talker.stdout), ["/quit", "//x", "/etc is full"])

    def test_ctrl_c_ends_a_chat_without_a_connection_at_once_and_says_what_is_not_stored(self):
        pid, terminal = pty.fork()
        if pid == 0:
            for key in [key for key in os.environ if key.startswith("MARTLET_")]:
                del os.environ[key]
            os.execv(MARTLET, ["martlet", "chat", "--url", f"ws://127.0.0.1:{free_port()}/ws", "--user", "typist", "tty"])
        shown = bytearray()

        def read(until):
            self.read(terminal, shown, until)

        read("There is no connection")
        os.write(terminal, b"hello\r\x04")
        read("1 message waits")
        started = time.monotonic()
        os.write(terminal, b"\x03")
        read("martlet: 1 message was not acknowledged as stored")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 1)
        self.assertLess(time.monotonic() - started, 5)
        os.close(terminal)

    def test_a_killed_node_is_said_and_nothing_is_lost_or_doubled(self):
        alice, bob = two_users_on_two_nodes()
        one, two = Piped(alice, "kill"), Piped(bob, "kill")
        one.expect_line(f"+ {bob} is here" if one.lines else "here:")
        two.expect_line("here:")
        one.say("before")
        two.expect(alice, "before")
        shared.cluster.kill(node_of(alice))
        one.expect_line("The connection is lost")
        two.say("meanwhile")
        one.say("typed while away")
        one.expect_line("Connected again")
        one.expect_line("Nothing was missed")
        for chat in (one, two):
            chat.expect(bob, "meanwhile")
            chat.expect(alice, "typed while away")
        two.say("after")
        one.expect(bob, "after")
        self.assertEqual(one.said(), two.said())
        self.assertEqual(len(one.said()), 4)
        self.assertEqual((one.end(), two.end()), (0, 0))

    def test_on_a_terminal_the_input_line_stays_below_what_is_said(self):
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(TERM="xterm-256color")
            for key in [key for key in os.environ if key.startswith("MARTLET_")]:
                del os.environ[key]
            os.execv(MARTLET, ["martlet", "chat", "--url", shared.cluster.ws, "--user", "typist", "tty"])
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 72, 0, 0))
        shown = bytearray()

        def read(until):
            self.read(terminal, shown, until)

        read("1 here")
        os.write(terminal, "hallo\x1b[D\x1b[D\x1b[D\x7fe zoë 日\r".encode())
        read("he zoë 日llo")
        other = Piped("other", "tty")
        read("+ other is here")
        del shown[:]
        os.write(terminal, b"half a sent")
        other.say("\x1b[2J\x07hostile")
        read("\\u{1b}[2J\\u{7}hostile")
        read("half a sent")
        self.assertNotIn(b"\x1b[2J", bytes(shown))
        os.write(terminal, b"ence\r/who\r")
        read("half a sentence")
        other.expect("typist", "half a sentence")
        read("2 here:")
        os.write(terminal, b"/quit\r")
        read("\x1b[J")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        os.close(terminal)
        other.end()

    def test_a_server_that_wants_a_token_says_so_at_once(self):
        shared.cluster.start_node("chat-token-node", auth="token", MARTLET_TOKEN_SECRET="for this test alone, over 32 bytes long")
        self.addCleanup(shared.cluster.kill, "chat-token-node")
        url = f"ws://127.0.0.1:{shared.cluster.ports['chat-token-node']}/ws"
        result = subprocess.run([MARTLET, "chat", "--url", url, "--user", "somebody"], env=clean_environment(), input="hello",
                                capture_output=True, text=True, timeout=4)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"\Amartlet: [^\n]*this server asks for a token\n\Z")

    def test_what_cannot_work_ends_with_one_sentence(self):
        def run(*options, **environment):
            return subprocess.run([MARTLET, "chat", *options], env={**clean_environment(), **environment}, input="",
                                  capture_output=True, text=True, timeout=30)

        for options in (["--url", "http://x"], ["--url", "ftp://x"], ["--user", "a\x01"], ["--user", ""], ["--nonsense"], ["no room"]):
            result = run(*options)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertRegex(result.stderr, r"\Amartlet: [^\n]+\n\Z")
        result = run("--user", "bob", MARTLET_CHAT_TOKEN="a.b.c")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stderr, "martlet: --user and MARTLET_CHAT_TOKEN both say who you are: leave one of them out\n")
