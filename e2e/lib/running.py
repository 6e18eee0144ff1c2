"""Processes that never outlive the run, conditions with deadlines, logs without surprises."""

import atexit
import ctypes
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

_alive = []
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A story did not hold. The text is for a person and says what was expected."""


def expect(truth, text):
    """Ends the story with `text` unless `truth` holds."""
    if not truth:
        raise Failed(text)


def until(condition, what, seconds=30.0):
    """Waits until `condition()` gives something true and returns it; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Process:
    """One long-running process in a group of its own, its output in `log`. Start it from the main thread:
    the kernel ends it with the thread that started it."""

    def __init__(self, name, argv, log, env, cwd=None):
        self.name, self.log, self.argv = name, pathlib.Path(log), [str(a) for a in argv]
        with open(self.log, "ab") as out:
            self._child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=cwd,
                start_new_session=True, preexec_fn=_die_with_parent)
        self.pid = self._child.pid
        _alive.append(self)

    def running(self):
        """Whether it has not ended yet."""
        return self._child.poll() is None

    def ready(self, condition, seconds=30.0):
        """Waits until `condition()` holds; fails at once, with the end of its log, if the process ends before."""

        def look():
            if not self.running():
                raise Failed(f"{self.name} ended with {self._child.returncode} instead of getting ready:\n{self.tail()}")
            return condition()

        until(look, f"{self.name} gets ready (log {self.log})", seconds)
        return self

    def kill(self):
        """Kills the group as a power cut would, and reaps it."""
        self.signal(signal.SIGKILL)
        self._child.wait()
        self._gone()

    def stop(self, seconds=15.0):
        """Asks it to end, kills it after `seconds`; returns its exit code."""
        self.signal(signal.SIGTERM)
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        self.signal(signal.SIGKILL)
        self._child.wait()
        self._gone()
        return self._child.returncode

    def signal(self, number):
        """Sends a signal to the whole group."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def tail(self, lines=15):
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def cpu_seconds(self):
        """User and system seconds it has used so far, as the kernel counts them."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_rss(self):
        """The most resident memory it has had, in bytes."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024

    def _gone(self):
        if self in _alive:
            _alive.remove(self)


class Ran:
    """A command that has ended."""

    def __init__(self, argv, code, out, err, seconds):
        self.argv, self.code, self.out, self.err, self.seconds = argv, code, out, err, seconds

    def said(self):
        """Everything it printed."""
        return self.out + self.err

    def ok(self):
        """Itself, or the story fails with what the command printed."""
        name = os.path.basename(self.argv[0])
        expect(self.code == 0, f"{name} {' '.join(self.argv[1:4])} … exited {self.code}:\n{self.said()[-3000:]}")
        return self


def run(argv, env, seconds=300.0, cwd=None, stdin=None):
    """Runs a command to its end, at most `seconds`, and returns what it did. Never raises for its exit code."""
    argv = [str(a) for a in argv]
    begun = time.monotonic()
    child = subprocess.Popen(argv, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env=env, cwd=cwd, start_new_session=True, preexec_fn=_die_with_parent)
    try:
        out, err = child.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        raise Failed(f"{' '.join(argv[:4])} … did not end within {seconds:.0f} s:\n"
                     f"{(out + err).decode(errors='replace')[-3000:]}") from None
    return Ran(argv, child.returncode, out.decode(errors="replace"), err.decode(errors="replace"),
               time.monotonic() - begun)


class Folder:
    """A temporary folder of one story: removed when it held, kept and named when it did not."""

    def __init__(self, name):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=f"hawser-{name}-"))

    def __enter__(self):
        return self.path

    def __exit__(self, kind, *_):
        stop_all()
        if kind is None:
            shutil.rmtree(self.path, ignore_errors=True)
        elif not issubclass(kind, KeyboardInterrupt):
            print(f"  logs and data are kept in {self.path}", file=sys.stderr)


_LOUD = re.compile(r'(?:^|[\s"\[\x1b])(ERROR|WARN)(?:[\s"\]\x1b]|$)')


def surprises(logs, announced=()):
    """The ERROR and WARN lines in `logs` that no pattern of `announced` foretold."""
    known = [re.compile(pattern) for pattern in announced]
    return [
        f"{pathlib.Path(log).name}: {line}"
        for log in logs
        for line in pathlib.Path(log).read_text(errors="replace").splitlines()
        if _LOUD.search(line) and not any(pattern.search(line) for pattern in known)
    ]


_SECRET = re.compile(rb"-for-tests-only|Signature=[0-9a-f]{32}|AWS4-HMAC-SHA256 Credential|BEGIN [A-Z ]*PRIVATE KEY")


def secrets(files):
    """Where one of `files` holds a secret of the story, a signature or a private key."""
    return [f"{file}: {found.group().decode()}" for file in map(pathlib.Path, files)
            for found in [_SECRET.search(file.read_bytes())] if found]


def stop_all():
    """Kills whatever this run started and has not ended, newest first."""
    for process in reversed(_alive[:]):
        process.kill()


def stop_all_but(*kept):
    """As [`stop_all`], except those named."""
    for process in reversed(_alive[:]):
        if process not in kept:
            process.kill()


def _ended_by(number, _frame):
    sys.exit(128 + number)


def guard():
    """Called once by each entry: whatever way this process ends, what it started ends too."""
    atexit.register(stop_all)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended_by)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 65_536), hard), hard))
