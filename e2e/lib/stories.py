"""The registry of stories: functions on a fresh world, with the lines they announce for Hawser's logs."""

import importlib
import pathlib
import subprocess
import sys

from lib import machine, running

_MODULES = {"clouds": ["lib.bare"], "demo": ["lib.told"], "faults": ["lib.faults"], "soak": ["lib.soak"], "transparency": ["lib.clear"]}
_known = {}


class Story:
    """One story: what it does on a folder, the ERROR and WARN lines it announces, and whether it needs a
    network namespace of its own."""

    def __init__(self, stage, function, announced, own_network):
        self.stage, self.function, self.announced, self.own_network = stage, function, announced, own_network

    def run(self):
        """Tells it in a temporary folder; fails on loud lines that it did not announce. Gives the number of
        checks it made, where it is more than one."""
        with running.Folder(self.function.__name__.replace("_", "-")) as folder:
            count = self._elsewhere(folder) if self.own_network else self.function(folder)
            running.stop_all()
            logs = sorted(folder.glob("s*.log"))
            loud = running.surprises(logs, self.announced)
            running.expect(not loud, "lines nobody announced:\n  " + "\n  ".join(loud[:20]))
            told = running.secrets([*logs, *folder.glob("replicate*.log"), *folder.glob("*-state/journal")])
            running.expect(not told, "secrets were written down:\n  " + "\n  ".join(told[:20]))
            return count

    def _elsewhere(self, folder):
        """Tells it in a child process whose only network is a loopback of its own."""
        child = subprocess.run(
            ["unshare", "--net", machine.python(), "-m", "lib.stories", self.stage, self.function.__name__, folder],
            env=machine.environment(PYTHONPATH=machine.REPO / "e2e"), stdin=subprocess.DEVNULL)
        running.expect(child.returncode == 0, "it failed in its own network, as said above")


def story(stage, announced=(), own_network=False):
    """Registers a function on a folder as a story of `stage`. `announced`: patterns of the ERROR and WARN
    lines that Hawser is expected to log in it."""

    def register(function):
        _known.setdefault(stage, {})[function.__name__] = Story(stage, function, announced, own_network)
        return function

    return register


def registered(stage):
    """The stories of a stage by name, in the order in which they stand in their files."""
    for module in _MODULES[stage]:
        importlib.import_module(module)
    return _known.get(stage, {})


def main(stage, name, folder):
    """The child's side of a story in a network of its own."""
    running.guard()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    try:
        # Imported anew: as a program, this file is another module than the one stories registered with.
        importlib.import_module("lib.stories").registered(stage)[name].function(pathlib.Path(folder))
    except running.Failed as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main(*sys.argv[1:])
