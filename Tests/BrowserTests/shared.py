"""The one cluster and the one browser that all browser tests use."""

import pathlib

from cluster import Cluster
from webdriver import Browser

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHOTS = ROOT / ".martlet" / "screenshots"

cluster = None
browser = None
_windows = {}


def start():
    global cluster, browser
    cluster = Cluster()
    browser = Browser()


def stop():
    if browser:
        browser.close()
    if cluster:
        cluster.close()


def window(name):
    """A window that keeps its name, and what it shows, from test to test."""
    if name not in _windows:
        _windows[name] = browser.new_window() if _windows else browser.first_window()
        _windows[name].resize(1280, 800)
    return _windows[name]
