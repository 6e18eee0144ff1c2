"""The registry of stories: functions on a fresh world, with the lines they announce for Hawser's logs."""

import importlib

from lib import running

_MODULES = {"clouds": ["lib.bare"], "demo": ["lib.told"], "faults": ["lib.faults"], "transparency": ["lib.clear"]}
_known = {}


class Story:
    """One story: a name, what it does on a folder, and the ERROR and WARN lines it announces."""

    def __init__(self, function, announced):
        self.function, self.announced = function, announced

    def run(self):
        """Tells it in a temporary folder; fails on loud lines that it did not announce."""
        with running.Folder(self.function.__name__.replace("_", "-")) as folder:
            count = self.function(folder)
            running.stop_all()
            loud = running.surprises(sorted(folder.glob("s*.log")), self.announced)
            running.expect(not loud, "lines nobody announced:\n  " + "\n  ".join(loud[:20]))
            return count


def story(stage, announced=()):
    """Registers a function on a folder as a story of `stage`. `announced`: patterns of the ERROR and WARN
    lines that Hawser is expected to log in it."""

    def register(function):
        _known.setdefault(stage, {})[function.__name__] = Story(function, announced)
        return function

    return register


def registered(stage):
    """The stories of a stage by name, in the order in which they stand in their files."""
    for module in _MODULES[stage]:
        importlib.import_module(module)
    return _known.get(stage, {})
