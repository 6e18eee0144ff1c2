"""The demo's data: two releases of a real source tree, and files of 100 MB with the redundancy that such
files have: a database and a disk image, each of Monday and, a few changes later, of Tuesday."""

import os
import shutil
import sqlite3
import subprocess

from lib import machine

LARGE = 100 << 20


def prepare():
    """The folder with `release-1`, `release-2`, `{monday,tuesday}.{sqlite,img}`; made once, then kept in the cache."""
    trees = sorted(path for path in machine.TREES.iterdir() if path.is_dir())[:2]
    stem = "-".join(tree.name for tree in trees)
    done = machine.CACHE / "data" / f"{stem}-sources"
    if done.exists():
        return done
    making = done.with_name(f"{done.name}.{os.getpid()}")
    making.mkdir(parents=True)
    for number, tree in enumerate(trees, 1):
        shutil.copytree(tree, making / f"release-{number}", symlinks=False,
                        ignore=shutil.ignore_patterns("__pycache__", "*.dist-info", "bin", "share", "tests"))
    _databases(making)
    _images(making)
    making.rename(done)
    return done


def _databases(folder):
    monday, tuesday = folder / "monday.sqlite", folder / "tuesday.sqlite"
    database = sqlite3.connect(monday)
    database.execute("CREATE TABLE document (id INTEGER PRIMARY KEY, copy INTEGER, path TEXT, body BLOB)")
    copy = 0
    while os.path.getsize(monday) < LARGE:
        for file in sorted((folder / "release-1").rglob("*.py")):
            text = f"-- copy {copy}\n".encode() + file.read_bytes()
            database.execute("INSERT INTO document (copy, path, body) VALUES (?, ?, ?)",
                             (copy, str(file.relative_to(folder)), text))
        database.commit()
        copy += 1
    database.close()
    shutil.copy(monday, tuesday)
    database = sqlite3.connect(tuesday)
    database.execute("UPDATE document SET path = path || '~' WHERE id % 97 = 0")
    database.execute("INSERT INTO document (copy, path, body) SELECT 99, path, body FROM document WHERE id % 61 = 0")
    database.commit()
    database.close()


def _images(folder):
    monday, tuesday = folder / "monday.img", folder / "tuesday.img"
    mkfs, debugfs = _admin("mkfs.ext4"), _admin("debugfs")
    subprocess.run([mkfs, "-q", "-F", "-O", "^has_journal", "-d", folder / "release-1", monday, f"{LARGE >> 10}k"],
                   check=True, stdin=subprocess.DEVNULL)
    shutil.copy(monday, tuesday)
    changed = sorted((folder / "release-2").rglob("*.py"))[::50]
    commands = "".join(f"write {file} changed-{index}.py\n" for index, file in enumerate(changed))
    subprocess.run([debugfs, "-w", "-f", "/dev/stdin", tuesday], input=commands.encode(), check=True, capture_output=True)


def _admin(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or name
