"""Runs cases of the Autobahn test suite against Tests/EchoServer, tells what came of them and leaves a report.

`run` calls it with the interpreter and the path where the suite is installed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import autobahn
from autobahntestsuite import fuzzing, version
from twisted.internet import reactor
from twisted.logger import globalLogBeginner
from twisted.python import log

# Every group, and of those that take minutes what is done in seconds: each size class of 9 but the largest, each sort
# of text of 12, each set of parameters of 13.
SHORT = (
    "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.1.1,9.2.1,9.3.1,9.4.1,9.7.1,9.8.1,10.*,"
    "12.1.1,12.2.1,12.3.1,12.4.1,12.5.1,13.1.1,13.2.1,13.3.1,13.4.1,13.5.1,13.6.1,13.7.1"
)
BEHAVIORS = ("OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "FAILED")
GOOD = {"OK", "INFORMATIONAL"}
# What only a faulty conversion raises; the fuzzer raises other errors where a server provokes them (bad deflate data).
OWN_FAULTS = (TypeError, NameError, AttributeError, LookupError, ImportError, AssertionError)


class Factory(fuzzing.FuzzingClientFactory):
    """The suite's own, telling how far it is."""

    def __init__(self, spec, tell):
        self.tell = tell
        self.refusal = None
        super().__init__(spec)

    def logCase(self, result):
        super().logCase(result)
        self.tell(result["id"], len(self.agents["server"]), len(self.specCases))

    def clientConnectionFailed(self, connector, reason):
        self.refusal = reason.getErrorMessage()
        super().clientConnectionFailed(connector, reason)


class Errors:
    """Exceptions inside the fuzzer: its own faults end the run, provoked ones fail it."""

    def __init__(self):
        self.own, self.provoked = [], []
        discard = lambda event: None  # noqa: E731
        globalLogBeginner.beginLoggingTo([discard], redirectStandardIO=False, discardBuffer=True)
        log.addObserver(self.observe)

    def observe(self, event):
        if not event.get("isError"):
            return
        failure = event.get("failure")
        text = failure.getTraceback() if failure else str(event.get("message"))
        if failure and not failure.check(*OWN_FAULTS):
            self.provoked.append(text)
            return
        self.own.append(text)
        if reactor.running and len(self.own) == 1:
            reactor.stop()


def arguments():
    parser = argparse.ArgumentParser(prog="run", description="Runs the Autobahn test suite against Tests/EchoServer.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--cases", default="*", help="ids and patterns, with commas between (all)")
    which.add_argument("--short", dest="cases", action="store_const", const=SHORT, help="a selection, in seconds")
    parser.add_argument("--server", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--report", required=True, type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def selected(patterns):
    """The patterns as a list, each of which names a case."""
    known = fuzzing.CaseSet(
        fuzzing.CaseSetname, fuzzing.CaseBasename, fuzzing.Cases, fuzzing.CaseCategories, fuzzing.CaseSubCategories)
    patterns = [p.strip() for p in patterns.split(",") if p.strip()]
    for pattern in patterns or [""]:
        ids = known.resolveCasePatternList([pattern])
        if not ids or any(i not in known.CasesById for i in ids):
            sys.exit(fail(f"the suite has no case {pattern or 'without a name'}"))
    return patterns


def fail(sentence):
    print(f"Autobahn: {sentence}", file=sys.stderr)
    return 2


def progress(case, done, count):
    if sys.stderr.isatty():
        print(f"\r{done}/{count} {case}\x1b[K", end="\n" if done == count else "", file=sys.stderr, flush=True)
    elif done % 50 == 0 or done == count:
        print(f"{done} of {count} cases", file=sys.stderr, flush=True)


def fuzz(port, patterns, report):
    """The factory with its results, the fuzzer's errors, and the seconds that it took."""
    errors = Errors()
    began = time.monotonic()
    spec = {
        "outdir": str(report), "servers": [{"agent": "server", "url": f"ws://127.0.0.1:{port}/"}],
        "cases": patterns, "exclude-cases": [], "exclude-agent-cases": {},
    }
    stdout = sys.stdout
    with open(report / "log.txt", "w", encoding="utf-8") as sys.stdout:
        factory = Factory(spec, progress)
        reactor.run()
        print("\n".join(errors.own + errors.provoked))
    sys.stdout = stdout
    return factory, errors, time.monotonic() - began


def summary(factory, errors, seconds, server):
    results = factory.agents.get("server", {})
    groups = {}
    for case in factory.specCases:
        number = case.split(".")[0]
        group = groups.setdefault(
            number, {"name": fuzzing.CaseCategories[number], "cases": 0, "seconds": 0.0, **dict.fromkeys(BEHAVIORS, 0)})
        group["cases"] += 1
        if case in results:
            group[results[case]["behavior"]] += 1
            group["seconds"] = round(group["seconds"] + results[case]["duration"] / 1000, 3)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "suite": version, "autobahn": autobahn.version, "python": sys.version.split()[0],
        "server": Path(server).parent.name,
        "seconds": round(seconds, 1),
        "groups": groups,
        "informational": [c for c in factory.specCases if results.get(c, {}).get("behavior") == "INFORMATIONAL"],
        "bad": {
            c: [r["behavior"], r["behaviorClose"]] for c, r in results.items()
            if r["behavior"] not in GOOD or r["behaviorClose"] not in GOOD
        },
        "not_run": [c for c in factory.specCases if c not in results],
        "provoked_errors": errors.provoked,
    }


def tell(summary):
    row = "{:>5}  {:<42} {:>5} " + " {:>13}" * len(BEHAVIORS) + " {:>8}"
    print(row.format("group", "", "cases", *BEHAVIORS, "seconds"))
    total = dict.fromkeys(("cases", *BEHAVIORS), 0)
    for number, group in summary["groups"].items():
        counts = [group[key] for key in total]
        print(row.format(number, group["name"], *counts, f"{group['seconds']:.1f}"))
        total = {key: total[key] + group[key] for key in total}
    print(row.format("all", "", *total.values(), f"{summary['seconds']:.1f}"))
    if summary["informational"]:
        print("INFORMATIONAL: " + " ".join(summary["informational"]))
    for case, (behavior, close) in summary["bad"].items():
        print(f"{case}: {behavior}, its closing handshake {close}")


def main():
    options = arguments()
    patterns = selected(options.cases)
    shutil.rmtree(options.report, ignore_errors=True)
    options.report.mkdir(parents=True)
    server = subprocess.Popen([options.server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = server.stdout.readline().strip()
        if not port.isdigit():
            return fail(f"{options.server} did not start")
        factory, errors, seconds = fuzz(port, patterns, options.report)
        died = server.poll()
    finally:
        server.stdin.close()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
    outcome = summary(factory, errors, seconds, options.server)
    (options.report / "summary.json").write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    tell(outcome)
    print(f"Reports: {os.path.relpath(options.report)}")
    if errors.own:
        return fail(f"an error inside the fuzzer: {errors.own[0].strip()}")
    if died is not None:
        return fail(f"the echo server ended with {died}")
    if outcome["not_run"]:
        return fail(f"{len(outcome['not_run'])} cases did not run ({factory.refusal or 'the run broke off'})")
    for text in errors.provoked[:1]:
        print(f"The server provoked {len(errors.provoked)} errors in the fuzzer: {text.strip().splitlines()[-1]}")
    return 1 if outcome["bad"] or errors.provoked else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Twisted's threads need not be waited for.
    os._exit(status)
