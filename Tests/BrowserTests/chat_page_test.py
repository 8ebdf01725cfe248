"""The chat page as two people use it, in two windows on two nodes."""

import json
import signal
import time
import unittest

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

import shared
from webdriver import WebDriverError

LINES = """[...document.querySelectorAll('#messages li[data-seq], .messages li[data-seq]')].map((line) =>
  [Number(line.dataset.seq), line.querySelector('.text')?.textContent ?? ''])"""


def node_of(user):
    with connect(f"{shared.cluster.ws}?user={user}") as socket:
        return json.loads(socket.recv(timeout=10))["node"]


def two_users_on_two_nodes(candidates=("bob", "carol", "dana", "erik", "frida", "gustav", "hanna")):
    end = time.monotonic() + 40
    while time.monotonic() < end:
        try:
            first = node_of("alice")
            for name in candidates:
                if node_of(name) != first:
                    return "alice", name
        except (ConnectionError, WebSocketException):
            pass  # what the test before did to the cluster is not over
        time.sleep(0.5)
    raise AssertionError("the router sends everyone to one node")


def enter(window, user, room):
    window.open("about:blank")
    window.open(f"{shared.cluster.url}/?room={room}&user={user}")
    window.script("sessionStorage.clear(); localStorage.clear()")
    window.open(f"{shared.cluster.url}/?room={room}&user={user}")
    window.wait("the form is filled in", f"document.querySelector('#user').value === {json.dumps(user)}")
    window.press("enter")
    window.wait("the room is open", "document.documentElement.dataset.connection === 'online' && "
                "document.querySelector('.beginning h2, .messages li')")


def say(window, text):
    window.script("document.querySelector('#input').focus()")
    window.type("#input", text)
    window.press("enter")


def write_many(room, word, count):
    with connect(f"{shared.cluster.ws}?user=writer") as writer:
        writer.recv()  # welcome
        writer.send(json.dumps({"type": "join", "room": room}))
        while json.loads(writer.recv())["type"] != "joined":
            pass
        for number in range(count):
            writer.send(json.dumps({"type": "message", "room": room, "text": f"{word} {number}", "id": f"{number}"}))
        acks = 0
        while acks < count:
            acks += json.loads(writer.recv(timeout=20))["type"] == "ack"


def shows(window, text, seconds=15):
    window.wait(f"the window shows “{text}”", "[...document.querySelectorAll('.messages .text')].filter((line) => "
                "line.textContent === arguments[0]).length === 1", seconds, text)


class ChatPage(unittest.TestCase):
    room_number = 0

    def setUp(self):
        self.cluster = shared.cluster
        ChatPage.room_number += 1
        self.room = f"test-{ChatPage.room_number}"
        self.cluster.settle()
        self.alice, self.bob = two_users_on_two_nodes()
        shared.browser.console_errors()
        self.one = shared.window("one")
        self.two = shared.window("two")
        enter(self.one, self.alice, self.room)
        enter(self.two, self.bob, self.room)

    def tearDown(self):
        for window, name in ((self.one, "one"), (self.two, "two")):
            try:
                window.screenshot(shared.SHOTS / f"{self._testMethodName}-{name}.png")
                window.open("about:blank")
            except WebDriverError:
                pass
        for name, process in self.cluster.processes.items():
            if name.startswith("node-") and process.poll() is not None:
                self.cluster.start_node(name)

    def node(self, window):
        return window.text("#node")

    def check_lines(self, expected):
        """Both windows show the same lines in the same order, without a hole and without a repeat."""
        for window in (self.one, self.two):
            # Who said a line has it when its ack is there, which may be later than the line is with the other.
            window.wait("all lines are there", f"{LINES}.length >= arguments[0]", 10, len(expected))
        one, two = self.one.script(f"return {LINES}"), self.two.script(f"return {LINES}")
        self.assertEqual(one, two)
        seqs = [seq for seq, _ in one]
        self.assertEqual(seqs, list(range(1, len(seqs) + 1)))
        self.assertEqual(sorted(text for _, text in one), sorted(expected))
        self.assertEqual(self.one.script("return document.querySelectorAll('.pending, .failed').length"), 0)

    def test_two_windows_on_two_nodes_talk_see_each_other_and_see_typing(self):
        self.assertNotEqual(self.node(self.one), self.node(self.two))
        self.assertRegex(self.node(self.one), "^node-[abc]$")
        for window in (self.one, self.two):
            window.wait("both are here", "document.querySelectorAll('.person').length === 2")
        self.one.type("#input", "Good mor")
        self.two.wait("typing is seen", "document.querySelector('#typing').textContent === arguments[0]", 5,
                      f"{self.alice} is typing")
        self.one.type("#input", "ning")
        self.one.press("enter")
        shows(self.two, "Good morning")
        self.two.wait("typing ends with the message", "document.querySelector('#typing').textContent === ''", 2)
        say(self.two, "Hello Alice")
        shows(self.one, "Hello Alice")
        self.check_lines(["Good morning", "Hello Alice"])
        self.two.open("about:blank")
        self.one.wait("the other one left", "document.querySelectorAll('.person').length === 1")
        self.two.call("POST", "/back")
        self.one.wait("the other one came back", "document.querySelectorAll('.person').length === 2")
        say(self.two, "Here again")
        shows(self.one, "Here again")
        self.check_lines(["Good morning", "Hello Alice", "Here again"])
        self.assertEqual(shared.browser.console_errors(), [])

    def test_a_killed_node_is_seen_and_nothing_is_lost_or_doubled(self):
        say(self.one, "before")
        shows(self.two, "before")
        node = self.node(self.one)
        self.cluster.kill(node)
        self.one.wait("the loss is visible", "document.documentElement.dataset.connection !== 'online'", 5)
        self.assertFalse(self.one.script("return document.querySelector('#banner').hidden"))
        self.one.screenshot(shared.SHOTS / "connection-lost.png")
        say(self.one, "written while away")
        say(self.two, "said meanwhile")
        self.one.wait("the window is back", "document.documentElement.dataset.connection === 'online'", 30)
        self.assertNotEqual(self.node(self.one), node)
        for window in (self.one, self.two):
            shows(window, "written while away", 30)
            shows(window, "said meanwhile", 30)
        say(self.two, "after")
        shows(self.one, "after")
        self.check_lines(["before", "written while away", "said meanwhile", "after"])

    def test_many_messages_through_a_killed_node_come_once_and_in_one_order(self):
        expected = []
        for number in range(12):
            for window, name in ((self.one, "one"), (self.two, "two")):
                expected.append(f"{name} {number}")
                say(window, expected[-1])
            if number == 4:
                self.cluster.kill(self.node(self.one))
        for window in (self.one, self.two):
            window.wait("all lines are there", f"({LINES}).length >= {len(expected)}", 40)
            window.wait("nothing waits", "document.querySelectorAll('.pending').length === 0", 40)
        self.check_lines(expected)

    def test_a_draining_node_hands_its_windows_over_without_a_missing_line(self):
        say(self.one, "first")
        shows(self.two, "first")
        node = self.node(self.one)
        self.cluster.processes[node].send_signal(signal.SIGTERM)
        expected = ["first"]
        end = time.monotonic() + 40
        while not (self.node(self.one).startswith("node-") and self.node(self.one) != node):
            self.assertLess(time.monotonic(), end, "the window did not move")
            expected.append(f"line {len(expected)}")
            say(self.two, expected[-1])
            time.sleep(0.2)
        shows(self.one, expected[-1])
        self.check_lines(expected)
        self.assertEqual(self.cluster.processes[node].wait(20), 0)

    def test_with_no_node_left_the_window_counts_down_and_comes_back(self):
        say(self.one, "before")
        shows(self.one, "before")
        names = [name for name in self.cluster.processes if name.startswith("node-")]
        for name in names:
            self.cluster.kill(name)
        self.one.wait("it waits", "document.querySelector('#countdown').textContent !== ''", 20)
        self.one.screenshot(shared.SHOTS / "no-node.png")
        say(self.one, "kept")
        self.assertIn("connection", self.one.text(".pending .fate"))
        for name in names:
            self.cluster.start_node(name)
        try:
            self.one.click("#retry")
        except WebDriverError:
            pass  # it was already trying
        self.one.wait("it is back", "document.documentElement.dataset.connection === 'online'", 40)
        shows(self.two, "kept", 40)
        self.check_lines(["before", "kept"])

    def test_what_people_write_is_text_and_nothing_else(self):
        markup = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> & <b>b</b>"
        say(self.one, markup)
        shows(self.two, markup)
        say(self.one, "see https://example.com/a?b=c. javascript:alert(1)")
        self.two.wait("the address is a link", "document.querySelector('.text a')?.href === 'https://example.com/a?b=c'")
        self.assertEqual(self.two.script("return document.querySelectorAll('.messages img, .messages script, .messages b').length"), 0)
        self.assertEqual(self.two.script("return document.querySelectorAll('.messages a').length"), 1)
        self.assertNotIn("owned", self.two.script("return document.title"))

    def test_unread_lines_are_counted_when_the_window_is_scrolled_up(self):
        for number in range(30):
            say(self.one, f"line {number}")
        shows(self.two, "line 29")
        self.two.script("document.querySelector('#log').scrollTop = 0")
        self.two.wait("the way down is offered", "!document.querySelector('#latest').hidden")
        say(self.one, "news")
        self.two.wait("one is unread", "document.title.startsWith('(1) ')")
        self.assertIn("1 new message", self.two.text("#latest"))
        self.two.screenshot(shared.SHOTS / "unread.png")
        self.two.click("#latest")
        self.two.wait("it is read", "!document.title.startsWith('(')")
        self.assertTrue(self.two.script("const log = document.querySelector('#log');"
                                        "return log.scrollHeight - log.scrollTop - log.clientHeight < 2"))

    def test_a_reload_shows_the_same_lines(self):
        for text in ("one", "two", "three"):
            say(self.one, text)
            shows(self.two, text)
        self.two.call("POST", "/refresh")
        shows(self.two, "three")
        self.check_lines(["one", "two", "three"])

    def test_older_messages_come_when_the_window_is_scrolled_up(self):
        write_many(self.room, "old", 130)
        enter(self.one, self.alice, self.room)
        self.one.wait("the newest page is read", f"({LINES}).length === 50")
        for count in (100, 130):
            self.one.script("document.querySelector('#log').scrollTop = 0")
            self.one.wait(f"{count} lines are there", f"({LINES}).length === {count}")
            self.assertGreater(self.one.script("return document.querySelector('#log').scrollTop"), 100)
        self.assertEqual(self.one.script(f"return {LINES}"), [[n + 1, f"old {n}"] for n in range(130)])
        self.one.wait("the beginning is said", "document.querySelector('.beginning h2')")

    def test_a_window_that_nobody_looks_at_keeps_no_more_than_the_newest_lines(self):
        self.two.type("#new-room", f"{self.room}-other")
        self.two.press("enter")
        self.two.wait("the other room is open", "document.querySelector('#room-name').textContent === arguments[0]", 10,
                      f"{self.room}-other")
        write_many(self.room, "news", 1000)
        self.two.wait("all are counted", "document.title.startsWith('(1000) ')", 20)
        self.two.press("alt", "down")
        lines = self.two.script(f"return {LINES}")
        self.assertEqual(lines[-1], [1000, "news 999"])
        self.assertLessEqual(len(lines), 701)
        self.assertEqual(lines, [[seq, f"news {seq - 1}"] for seq, _ in lines])

    def test_a_room_that_was_left_can_be_entered_again_at_once(self):
        self.one.type("#new-room", f"{self.room}-other")
        self.one.press("enter")
        self.one.script("document.querySelector(`[aria-label='Leave ${arguments[0]}']`).click();"
                        "document.querySelector('#new-room').value = arguments[0];"
                        "document.querySelector('#add-room').requestSubmit()", self.room)
        self.one.wait("the room is open", "document.querySelector('#room-name').textContent === arguments[0]", 10, self.room)
        say(self.two, "are you back?")
        shows(self.one, "are you back?")
        say(self.one, "I am")
        shows(self.two, "I am")

    def test_a_link_to_what_is_no_room_is_refused_with_a_word_and_changes_nothing(self):
        say(self.one, "before")
        shows(self.two, "before")
        self.one.open(f"{self.cluster.url}/?user={self.alice}&room=bad%20room")
        self.one.wait("the name is refused", "document.querySelector('#notice').textContent.includes('“bad room” is no room')")
        self.assertEqual(self.one.text("#room-name"), self.room)
        self.assertEqual(self.one.script("return [...document.querySelectorAll('.room-item .name')].map((n) => n.textContent)"),
                         [self.room])
        say(self.one, "after")
        shows(self.two, "after")
        self.check_lines(["before", "after"])
        self.two.open("about:blank")
        self.two.open(f"{self.cluster.url}/?user=nobody&room=bad%20room")
        self.two.wait("the form says it", "document.querySelector('#sign-in-error').textContent.includes('is no room name')")

    def test_a_room_that_the_server_refuses_takes_no_other_with_it(self):
        self.one.script("document.querySelector('#new-room').value = 'dm:b:a';"
                        "document.querySelector('#add-room').requestSubmit()")
        self.one.wait("the refusal is said", "document.querySelector('#notice').textContent.includes('#dm:b:a cannot be joined')")
        self.one.wait("the room before is open", "document.querySelector('#room-name').textContent === arguments[0]", 5,
                      self.room)
        say(self.one, "still here")
        shows(self.two, "still here")

    def test_who_is_taken_out_of_their_only_room_reads_why(self):
        self.cluster.admin("kick", self.alice, "--room", self.room)
        self.one.wait("the form says why", "document.querySelector('#sign-in-error').checkVisibility() && "
                      "document.querySelector('#sign-in-error').textContent.startsWith(arguments[0])", 10,
                      f"You were taken out of #{self.room}")
        say(self.two, "alone now")
        shows(self.two, "alone now")

    def test_the_longest_names_fit_beside_the_chat(self):
        name = "r" * 128
        enter(self.two, "w" * 128, self.room)
        self.one.type("#new-room", name)
        self.one.press("enter")
        self.one.wait("the room is open", "document.querySelector('#room-name').textContent === arguments[0]", 10, name)
        for window in (self.one, self.two):
            for width, phone in ((1280, False), (360, True)):
                window.resize(width, 740, 2 if phone else 1, phone)
                window.wait("nothing is cut off", """[...document.querySelectorAll('.rooms, .people')]
                  .every((side) => side.scrollWidth <= side.clientWidth &&
                    [...side.querySelectorAll('li')].every((item) => item.offsetWidth <= side.clientWidth))""", 5)
            window.resize(1280, 800)

    def test_a_redis_that_forgot_everything_is_said_and_the_chat_goes_on(self):
        say(self.one, "forgotten soon")
        shows(self.two, "forgotten soon")
        self.assertTrue(self.cluster.redis("FLUSHALL").startswith("+OK"))
        texts = []
        end = time.monotonic() + 60
        while not self.two.script("return document.querySelector('.gap')"):
            self.assertLess(time.monotonic(), end, "no gap was said")
            texts.append(f"later {len(texts)}")
            say(self.one, texts[-1])
            time.sleep(1)
        say(self.one, "the last one")
        shows(self.two, "the last one", 20)
        self.two.screenshot(shared.SHOTS / "gap.png")

    def test_the_keyboard_is_enough(self):
        focus = """const node = document.activeElement, box = node.getBoundingClientRect(), style = getComputedStyle(node);
          return [node.id || node.className || node.ariaLabel || node.tagName, box.top >= 0 && box.height > 0,
            style.boxShadow !== 'none' || getComputedStyle(node.parentNode).boxShadow !== 'none']"""
        self.one.script("document.querySelector('.skip').focus()")
        seen = [self.one.script(focus)]
        while seen[-1][0] != "input" and len(seen) < 20:
            self.one.press("tab")
            seen.append(self.one.script(focus))
        names = [name for name, _, _ in seen]
        self.assertEqual([name for name in names if name in ("skip", "new-room", "my-status", "sign-out", "log", "input")],
                         ["skip", "new-room", "my-status", "sign-out", "log", "input"])
        self.assertEqual([name for name, inView, ringed in seen if not (inView and ringed)], [])
        self.one.script("document.querySelector('.skip').focus()")
        self.one.press("enter")
        self.assertEqual(self.one.script("return document.activeElement.id"), "input")
        self.one.type("#input", "a\ue008\ue007\ue008b")
        self.assertEqual(self.one.script("return document.querySelector('#input').value"), "a\nb")
        self.one.press("enter")
        shows(self.two, "a\nb")
        self.one.type("#new-room", f"{self.room}-other")
        self.one.press("enter")
        self.one.wait("the other room is open", "document.querySelector('#room-name').textContent === arguments[0]", 10,
                      f"{self.room}-other")
        self.one.press("alt", "down")
        self.one.wait("Alt and an arrow change the room",
                      "document.querySelector('#room-name').textContent === arguments[0]", 5, self.room)
        say(self.two, "ping")
        shows(self.one, "ping")

    def test_phone_width_and_both_colour_schemes(self):
        for text in ("How does this look on a phone?", "A-very-long-word-" * 12, "https://example.com/" + "path/" * 30):
            say(self.two, text)
            shows(self.one, text)
        for scheme in ("light", "dark"):
            self.one.colour_scheme(scheme)
            self.one.resize(1280, 800)
            self.one.screenshot(shared.SHOTS / f"desktop-{scheme}.png")
            self.one.resize(360, 740, 2, True)
            self.one.wait("nothing is wider than the phone", "document.scrollingElement.scrollWidth <= 360 && "
                          "document.querySelector('#log').scrollWidth <= 360", 5)
            self.one.screenshot(shared.SHOTS / f"phone-{scheme}.png")
        self.one.click("#open-rooms")
        self.one.wait("the rooms are open", "'open' in document.querySelector('#rooms').dataset")
        self.one.press("escape")
        self.one.wait("Escape closes them", "!('open' in document.querySelector('#rooms').dataset)")
        small = self.one.script("""return [...document.querySelectorAll('button, input, textarea')]
          .filter((node) => node.checkVisibility({ visibilityProperty: true }) && node.getBoundingClientRect().width > 0)
          .filter((node) => Math.min(node.getBoundingClientRect().width, node.getBoundingClientRect().height) < 24)
          .map((node) => node.id || node.className)""")
        self.assertEqual(small, [], "targets are at least 24 px (WCAG 2.5.8)")
        self.one.resize(1280, 800)
        self.one.colour_scheme("light")


class PageOfOneNode(unittest.TestCase):
    def test_lines_over_the_rate_limit_keep_their_order(self):
        shared.cluster.start_node("slow-page-node", MARTLET_LIMIT_MESSAGES_PER_SECOND="40", MARTLET_LIMIT_MESSAGES_BURST="30")
        self.addCleanup(shared.cluster.kill, "slow-page-node")
        base = f"http://127.0.0.1:{shared.cluster.ports['slow-page-node']}"
        window = shared.window("one")
        self.addCleanup(window.open, "about:blank")
        window.open(f"{base}/?user=ada&room=fast")
        window.press("enter")
        window.wait("the room is open", "document.querySelector('.beginning h2')")
        window.script("""for (let number = 0; number < 150; number += 1) {
          const input = document.querySelector('#input');
          input.value = `line ${number}`;
          input.dispatchEvent(new Event('input'));
          document.querySelector('#composer').requestSubmit();
        }""")
        window.wait("all are stored", f"({LINES}).length === 150 && !document.querySelector('.pending, .failed')", 20)
        self.assertEqual(window.script(f"return {LINES}"), [[number + 1, f"line {number}"] for number in range(150)])

    def test_a_line_that_was_seen_before_its_ack_stands_once_and_waits_no_more(self):
        shared.cluster.start_replica("replica")
        self.addCleanup(shared.cluster.kill, "replica")
        shared.cluster.start_node("careful-node", MARTLET_ACK_REPLICAS="1")
        self.addCleanup(shared.cluster.kill, "careful-node")
        window = shared.window("one")
        self.addCleanup(window.open, "about:blank")
        window.open(f"http://127.0.0.1:{shared.cluster.ports['careful-node']}/?user=ada&room=careful")
        window.press("enter")
        window.wait("the room is open", "document.querySelector('.beginning h2')")
        say(window, "first")
        window.wait("the replica has it", f"({LINES}).length === 1 && !document.querySelector('.pending')")
        shared.cluster.signal("replica", signal.SIGSTOP)
        say(window, "second")
        window.wait("it is stored, but not acknowledged", f"({LINES}).length === 2 && document.querySelector('.pending')")
        shared.cluster.signal("replica", signal.SIGCONT)
        window.wait("it is acknowledged", "!document.querySelector('.pending')")
        self.assertEqual(window.script(f"return {LINES}"), [[1, "first"], [2, "second"]])
        self.assertEqual(window.script("return document.querySelectorAll('.messages .text').length"), 2)

    def test_a_line_that_was_acknowledged_behind_a_gap_goes_to_its_place(self):
        window = shared.window("one")
        window.open(shared.cluster.url)
        lines = window.asynchronous("""const done = arguments[arguments.length - 1];
          import("/timeline.js").then(({ Timeline }) => {
            const timeline = new Timeline({});
            const line = { from: "ada", own: true, ts: 1 };
            timeline.put({ ...line, text: "before", seq: 4, id: "a" });
            timeline.putPending({ ...line, text: "sent", id: "b" });
            timeline.putGap({ from: 5, to: 6, turned: false });
            timeline.put({ ...line, text: "after", seq: 7, id: "c" });
            timeline.settle({ id: "b", status: "acked", seq: 5, ts: 2 });
            return [...timeline.list.children].map((item) => [item.className, item.querySelector(".text")?.textContent]);
          }).then(done, (error) => done(`${error.stack}`));""")
        self.assertEqual(lines, [["own", "before"], ["gap", None], ["own", "sent"], ["own continued", "after"]])

    def test_each_of_as_many_rooms_as_one_may_be_in_shows_its_lines(self):
        shared.cluster.start_node("rooms-node", MARTLET_LIMIT_MESSAGES_PER_SECOND="30")
        self.addCleanup(shared.cluster.kill, "rooms-node")
        base = f"127.0.0.1:{shared.cluster.ports['rooms-node']}"
        names = [f"many-{number}" for number in range(100)]
        with connect(f"{shared.cluster.ws}?user=writer") as writer:
            writer.send(json.dumps({"type": "join", "rooms": [{"room": name} for name in names]}))
            def wait_for(kind, count=0):
                while count < len(names):
                    count += json.loads(writer.recv(timeout=20))["type"] == kind
            wait_for("joined")
            for name in names:
                writer.send(json.dumps({"type": "message", "room": name, "text": f"said in {name}", "id": name}))
            wait_for("ack")
        window = shared.window("one")
        self.addCleanup(window.open, "about:blank")
        window.open(f"http://{base}/?user=ada&room=many-0")
        window.script("localStorage.setItem('martlet.rooms.ada', arguments[0])", " ".join(names))
        window.press("enter")
        for name in (names[0], names[40], names[99]):
            window.script("[...document.querySelectorAll('#room-list button')].find("
                          "(button) => button.querySelector('.name')?.textContent === arguments[0])?.click()", name)
            shows(window, f"said in {name}")


class TokenPage(unittest.TestCase):
    def test_a_server_that_wants_tokens_makes_the_page_ask_for_one(self):
        secret = "for the browser tests alone, 40 bytes!!!"
        shared.cluster.start_node("token-node", auth="token", MARTLET_TOKEN_SECRET=secret)
        self.addCleanup(shared.cluster.kill, "token-node")
        token = shared.cluster.mint("ada", secret)
        window = shared.window("one")
        base = f"http://127.0.0.1:{shared.cluster.ports['token-node']}"
        window.open(base)
        window.script("sessionStorage.clear(); localStorage.clear()")
        window.open(f"{base}/?user=somebody&room=private")
        window.press("enter")
        window.wait("the page asks for a token", "document.querySelector('#token')?.checkVisibility()", 2)
        window.screenshot(shared.SHOTS / "token.png")
        window.type("#token", "eyJ.x.y")
        window.press("enter")
        window.wait("the token is refused", "document.querySelector('#sign-in-error').textContent.includes('not accepted')")
        self.assertEqual(window.text("#sign-in-error").lower().count("the token was not accepted"), 1)
        window.script("document.querySelector('#token').value = ''")
        window.type("#token", token)
        window.press("enter")
        window.wait("the token is accepted", "document.documentElement.dataset.connection === 'online'")
        say(window, "with a token")
        shows(window, "with a token")
        self.assertEqual(window.text("#my-name"), "ada")
        self.assertEqual(window.script("return [...document.querySelectorAll('.messages .who')].map((who) => who.textContent)"),
                         ["ada"])
        self.assertEqual(window.script("return document.querySelectorAll('.messages .own, .messages .pending').length"), 1)
        window.call("POST", "/refresh")
        shows(window, "with a token")
