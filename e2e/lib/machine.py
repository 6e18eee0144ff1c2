"""Where things are on this machine, and an environment for children without its habits."""

import os
import pathlib
import socket
import random

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "hawser"
TARGET = CACHE / "target"
TREES = CACHE / "trees"

# Machines set these for themselves; a story that inherits them tests the machine, not Hawser.
_HABITS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
           "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "PYTHONPATH", "JAVA_TOOL_OPTIONS", "GODEBUG")
_HABIT_PREFIXES = ("AWS_", "HAWSER_", "RCLONE_", "GRPC_", "NIX_SSL", "RUST_LOG")


def binary(name):
    """The path of one of Hawser's own programs, as the one release profile builds it."""
    return str(TARGET / "release" / name)


def tool(name):
    """The path of a program that e2e/setup installed into the cache."""
    for folder in (CACHE / "py" / "bin", CACHE / "bin"):
        if (folder / name).exists():
            return str(folder / name)
    raise FileNotFoundError(f"{name} is not in {CACHE}: run e2e/setup")


def python():
    """The interpreter of the cache's environment."""
    return str(CACHE / "py" / "bin" / "python3")


def environment(**more):
    """This process's environment without certificates, proxies and credentials of the machine, and with
    `more` set. AWS files of the user are out of reach too."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in _HABITS and not name.upper().startswith(_HABIT_PREFIXES)
    }
    kept |= {
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return kept | {name: str(value) for name, value in more.items()}


_given = set()


def free_port():
    """A loopback port that nobody has, below the range from which the kernel gives outgoing connections
    theirs, so that none takes it between now and its use."""
    for _ in range(1000):
        port = random.randrange(20_000, 32_000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError("no free port between 20000 and 32000")
