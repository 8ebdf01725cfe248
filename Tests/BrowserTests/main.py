"""Runs the browser tests, or takes the README's picture. See `run`."""

import argparse
import sys
import unittest

import shared


def selected(suite, words):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from selected(test, words)
        elif not words or any(word in test.id() for word in words):
            yield test


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--readme", action="store_true", help="take docs/images/chat.png and run nothing else")
    parser.add_argument("names", nargs="*", help="only tests whose name contains one of these")
    options = parser.parse_args()
    shared.start()
    try:
        if options.readme:
            import readme_picture

            readme_picture.take()
            return 0
        loader = unittest.TestLoader()
        modules = ["third_party", "schema", "martlet_js", "locate", "conformance", "clients_document", "chat_page"]
        modules += ["injection", "terminal", "token", "tls"]
        modules = [f"{name}_test" for name in modules]
        suite = unittest.TestSuite(selected(loader.loadTestsFromNames(modules), options.names))
        return 0 if unittest.TextTestRunner(verbosity=2, failfast=False).run(suite).wasSuccessful() else 1
    finally:
        shared.stop()


if __name__ == "__main__":
    sys.exit(main())
