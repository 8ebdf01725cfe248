"""docs/images/chat.png: two people, two nodes, a desktop window."""

import time

import shared
from chat_page_test import enter, say, shows, two_users_on_two_nodes


def take():
    alice, other = two_users_on_two_nodes()
    one, two = shared.window("one"), shared.window("two")
    enter(one, alice, "general")
    enter(two, other, "general")
    one.resize(1280, 760, 2)
    talk = [
        (one, f"Morning {other.capitalize()}! Three nodes are up, `make up` took one coffee."),
        (two, f"Morning! My window says {two.text('#node')}. Which one are you on?"),
        (one, f"{one.text('#node')}. So every line here goes through Redis and back."),
        (two, "And if I kill yours?"),
        (one, "Try it. The page says so, finds another node and asks for what it missed."),
        (one, "Nothing twice, nothing out of order."),
        (two, "Done, and I still have every line. 👏"),
    ]
    for window, text in talk:
        window.script("const input = document.querySelector('#input'); input.focus(); input.value = arguments[0];"
                      "input.dispatchEvent(new Event('input'))", text)
        window.press("enter")
        shows(one, text)
        shows(two, text)
    time.sleep(2.5)  # a node passes on a new "typing" two seconds after the last
    two.script("document.querySelector('#input').focus()")
    two.type("#input", "Next: two routers")
    one.wait("typing is seen", "document.querySelector('#typing').textContent !== ''", 5)
    one.script("document.querySelector('#input').focus()")
    time.sleep(0.4)  # the last line has settled
    path = shared.ROOT / "docs" / "images" / "chat.png"
    one.screenshot(path)
    print(path)
