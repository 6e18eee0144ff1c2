"""What a person sees of a run: a line per step with its sign and seconds, tables at the end."""

import contextlib
import sys
import time


class Report:
    """Prints as things happen; on a terminal the running step is shown before it ends."""

    def __init__(self, title):
        self.begun = time.monotonic()
        print(title, flush=True)

    @contextlib.contextmanager
    def step(self, text):
        """One step. The block may append details to the list it is given."""
        details, begun = [], time.monotonic()
        live = sys.stdout.isatty()
        if live:
            print(f"  …          {text}", end="", flush=True)
        try:
            yield details
        except BaseException:
            self._line("✗", begun, text, details, live)
            raise
        self._line("✓", begun, text, details, live)

    def _line(self, sign, begun, text, details, live):
        said = f": {', '.join(map(str, details))}" if details else ""
        print(f"{chr(13) + chr(27) + '[K' if live else ''}  {sign} {time.monotonic() - begun:6.1f} s  {text}{said}", flush=True)

    def table(self, rows):
        """Prints (name, value) rows, aligned."""
        width = max(len(name) for name, _ in rows)
        print()
        for name, value in rows:
            print(f"  {name.ljust(width)}  {value}")

    def seconds(self):
        """How long the run has taken so far."""
        return time.monotonic() - self.begun


def human(size):
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
