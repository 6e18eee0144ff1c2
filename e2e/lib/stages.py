"""Everything that must hold, cheap things first: `e2e/test [STAGE [STORY…]]`.

    e2e/test                     all of it
    e2e/test fmt clippy          these stages
    e2e/test faults              every unhappy story
    e2e/test faults store_down   one of them
"""

import os
import re
import sys
import time
import traceback

from lib import machine, running

STAGES = {}
ON_REQUEST = {"cluster"}  # runs only when it is named


def stage(function):
    """Registers `function` as the stage of its name, after those before it."""
    STAGES[function.__name__] = function
    return function


class Tally:
    """Counts what held and what did not, and prints each with its seconds."""

    def __init__(self):
        self.passed, self.failed = 0, []

    def judge(self, name, function):
        """Runs one check; any exception is a failure with its text. Returns whether it held."""
        begun = time.monotonic()
        print(f"{name} …", flush=True)
        try:
            count = function()
        except Exception as error:  # noqa: BLE001: a broken check is a failed one, the rest goes on
            self.failed.append(name)
            if not isinstance(error, running.Failed):
                traceback.print_exc()
            print(f"✗ {time.monotonic() - begun:6.1f} s  {name}\n{error}", flush=True)
            return False
        self.passed += count if isinstance(count, int) and not isinstance(count, bool) else 1
        print(f"✓ {time.monotonic() - begun:6.1f} s  {name}", flush=True)
        return True


def cargo(*args, seconds=3600):
    """Runs cargo on the workspace, in the one target folder and from the lock file."""
    env = machine.environment(CARGO_TARGET_DIR=machine.TARGET, CARGO_TERM_COLOR="never")
    # Registries may need this machine's own certificates; the tests below set what they need themselves.
    env |= {name: os.environ[name] for name in ("SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy") if name in os.environ}
    done = running.run(["cargo", *args], env, seconds, cwd=machine.REPO)
    running.expect(done.code == 0, f"cargo {' '.join(args[:3])} failed:\n{_what_failed(done)}")
    return done


def _what_failed(done):
    """The failed tests with what they printed, or else the end of what cargo said."""
    tests = re.findall(r"^---- \S+ stdout ----\n(?:.*\n){1,12}", done.out, re.M)
    return "\n".join(tests)[:8000] if tests else done.said()[-6000:]


@stage
def scripts(tally):
    """Shell and Python of this folder parse; the chart renders as it must."""

    def check():
        folder = machine.REPO / "e2e"
        for script in [*folder.iterdir(), *(folder / "cluster").iterdir(), machine.REPO / ".ci" / "run"]:
            if script.is_file() and script.read_bytes().startswith(b"#!/usr/bin/env bash"):
                running.run(["bash", "-n", script], machine.environment()).ok()
        for source in (folder / "lib").rglob("*.py"):
            compile(source.read_text(), str(source), "exec")

    held = tally.judge("scripts", check)
    from lib import chart
    return tally.judge("chart", chart.check) and held


@stage
def fmt(tally):
    """Formatting."""
    return tally.judge("fmt", lambda: cargo("fmt", "--all", "--check") and None)


@stage
def deny(tally):
    """Bans, licences and sources of all dependencies."""

    def check():
        cargo("fetch", "--locked")  # cargo-deny reads the sources of all dependencies and is kept offline
        running.run([machine.tool("cargo-deny"), "--offline", "--locked", "check", "bans", "licenses", "sources"],
                    os.environ | {"NO_COLOR": "1"}, cwd=machine.REPO).ok()

    return tally.judge("deny", check)


@stage
def clippy(tally):
    """Lints, as errors."""
    return tally.judge("clippy", lambda: cargo("clippy", "--workspace", "--all-targets", "--release", "--locked", "--",
                                               "-D", "warnings") and None)


@stage
def build(tally):
    """Everything, in the one profile there is."""
    return tally.judge("build", lambda: cargo("build", "--workspace", "--all-targets", "--release", "--locked") and None)


@stage
def unit(tally):
    """Unit, property, model and integration tests."""

    def check():
        done = cargo("test", "--workspace", "--release", "--locked", "--no-fail-fast")
        return sum(int(count) for count in re.findall(r"^test result: ok\. (\d+) passed", done.out, re.M))

    return tally.judge("unit", check)


def _stories(prefix, chosen, tally):
    """Runs the stories registered under `prefix`, all or the `chosen`, each in a world of its own."""
    from lib import stories
    known = stories.registered(prefix)
    wrong = [name for name in chosen if name not in known]
    if wrong:
        sys.exit(f"e2e/test: {prefix} has no story {', '.join(wrong)}; it has {', '.join(known)}")
    return all([tally.judge(f"{prefix} {name}", story.run) for name, story in known.items() if not chosen or name in chosen])


@stage
def clouds(tally, *chosen):
    """The application and the clouds without Hawser: what fails here is not Hawser's."""
    return _stories("clouds", chosen, tally)


@stage
def demo(tally, *chosen):
    """The README's story, as assertions."""
    return _stories("demo", chosen, tally)


@stage
def faults(tally, *chosen):
    """Its unhappy variants."""
    return _stories("faults", chosen, tally)


@stage
def soak(tally, *chosen):
    """Random kills of every process, for a minute; the seed is printed."""
    return _stories("soak", chosen, tally)


@stage
def transparency(tally, *chosen):
    """Clients in several languages, and a conformance suite with and without the sidecar."""
    return _stories("transparency", chosen, tally)


@stage
def cluster(tally, *chosen):
    """In real pods of a Kubernetes that it boots: install, protect, migrate, outages. Only when it is named."""
    from lib.cluster import world
    return world.told(tally, chosen)


def main(args):
    """Walks the chosen stages and ends with the count of what held and what did not."""
    running.guard()
    tally = Tally()
    if args and args[0] in ("-h", "--help"):
        print(__doc__)
        for name, function in STAGES.items():
            print(f"  {name:14}{function.__doc__.splitlines()[0]}")
        return 0
    if args and args[0] not in STAGES:
        sys.exit(f"e2e/test: no stage {args[0]}; there are {', '.join(STAGES)}")
    if len(args) > 1 and args[1] not in STAGES:
        STAGES[args[0]](tally, *args[1:])
    else:
        built = True
        for name in args or [name for name in STAGES if name not in ON_REQUEST]:
            if name not in STAGES:
                sys.exit(f"e2e/test: no stage {name}; there are {', '.join(STAGES)}")
            if not built and name in ("unit", "demo", "faults", "soak", "transparency", "cluster"):
                continue  # nothing to run: the failed build says why
            held = STAGES[name](tally)
            built = built and (held or name != "build")
    if tally.failed:
        print("\nfailed: " + ", ".join(tally.failed))
    print(f"\n{tally.passed} passed, {len(tally.failed)} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
