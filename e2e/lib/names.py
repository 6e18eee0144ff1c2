"""Names for loopback: Go clients never use a proxy for `localhost` or 127/8, so each cloud has a name in
/etc/hosts while a run lasts. Lines are marked with the run's process id; lines of ended runs go at once."""

import atexit
import fcntl
import os
import re

_HOSTS = "/etc/hosts"
_MARK = re.compile(r"# hawser e2e, run (\d+)$")


def add(*names, address="127.0.0.1"):
    """Lets `names` mean `address` until this process ends."""
    _rewrite([f"{address} {name} # hawser e2e, run {os.getpid()}" for name in names])


@atexit.register
def _remove():
    try:
        _rewrite([], own=False)
    except OSError:
        pass


def _rewrite(more, own=True):
    with open(_HOSTS, "r+") as file:  # in place: in a container this is a mount that cannot be replaced
        fcntl.flock(file, fcntl.LOCK_EX)
        before = file.read().splitlines()
        kept = [line for line in before if _belongs(line, own) and line not in more]
        if kept + more != before:
            file.seek(0)
            file.truncate()
            file.write("\n".join(kept + more) + "\n")


def _belongs(line, own):
    mark = _MARK.search(line)
    if not mark:
        return True
    run = int(mark.group(1))
    return (own and run == os.getpid()) or (run != os.getpid() and os.path.exists(f"/proc/{run}"))
