"""Side by side with peers on this machine: nginx's stream module for the relay, restic for the store, rclone for
the mover. Runs are interleaved, medians are shown, CPU-seconds come from the kernel.

    e2e/bench [--quick] [--size MIB] [--runs N] [--json FILE] [ROW…]    rows: relay requests handshakes ingest replicate
"""

import argparse
import json
import os
import resource
import shutil
import socket
import ssl
import statistics
import sys
import time
import types

from lib import authority, clouds, hawser, machine, names, running

BLOCK = 128 << 10
HOST = "s3.cloud-a.test"
LOAD = machine.TARGET / "release" / "examples" / "load"


def body(kind, size, run):
    """Pieces of 1 MiB: `known` ones repeat themselves in every run, `new` and `text` ones never do. All blocks of a run
    have one content but for their first bytes, so that making them costs little; each is what it says on its own."""
    chaos = os.urandom(BLOCK)
    block = {"known": b"k" * BLOCK, "new": chaos, "text": chaos[:BLOCK // 2].hex().encode()}[kind]
    for number in range(size >> 20):
        piece = bytearray(block * 8)
        for index in range(8):
            stamp = b"%020d" % (number * 8 + index + (0 if kind == "known" else (run + 1) << 40))
            piece[index * BLOCK:index * BLOCK + 20] = stamp
        yield piece


def paced(pieces, mib_per_second):
    """The same pieces of 1 MiB, not faster than that; 0: as fast as they are taken."""
    begun = time.monotonic()
    for number, piece in enumerate(pieces):
        if mib_per_second:
            time.sleep(max(0, begun + number / mib_per_second - time.monotonic()))
        yield piece


class Bench:
    """The origin, the relays and the numbers."""

    def __init__(self, folder, size, runs):
        self.folder, self.size, self.runs, self.results = folder, size, runs, {}
        self.reasons = set()
        self.ca = authority.Authority(folder / "ca")
        self.certificate, self.key = self.ca.issue(HOST)
        names.add(HOST)
        self.port = machine.free_port()
        self.origin = running.Process(
            "origin", [machine.python(), "-m", "lib.origin", self.port, self.certificate, self.key], folder / "origin.log",
            machine.environment(PYTHONPATH=machine.REPO / "e2e")).ready(lambda: _listens(self.port))
        self.trust = ssl.create_default_context(cafile=str(self.ca.pem))

    def note(self, row, name, **numbers):
        """One measurement of one contender."""
        for unit, value in numbers.items():
            self.results.setdefault(row, {}).setdefault(name, {}).setdefault(unit, []).append(value)

    def nginx(self):
        """nginx's stream module, TLS on both sides, one process."""
        port = machine.free_port()
        config = self.folder / "nginx.conf"
        module = "/usr/lib/nginx/modules/ngx_stream_module.so"
        config.write_text(f"""{f'load_module {module};' if os.path.exists(module) else ''}
daemon off; master_process off; pid {self.folder}/nginx.pid; error_log {self.folder}/nginx.log;
events {{ worker_connections 1024; }}
stream {{ server {{
  listen 127.0.0.1:{port} ssl; ssl_certificate {self.certificate}; ssl_certificate_key {self.key};
  ssl_protocols TLSv1.2 TLSv1.3; proxy_pass 127.0.0.1:{self.port}; proxy_ssl on; proxy_ssl_protocols TLSv1.2 TLSv1.3;
  proxy_ssl_name {HOST}; proxy_ssl_server_name on; proxy_ssl_verify on; proxy_ssl_trusted_certificate {self.ca.pem};
  proxy_ssl_session_reuse on; tcp_nodelay on; proxy_buffer_size 64k;
}} }}
""")
        process = running.Process("nginx", [shutil.which("nginx", path="/usr/sbin:/usr/bin"), "-c", config],
                                  self.folder / "nginx.out", machine.environment()).ready(lambda: _listens(port))
        return Relay("nginx stream", process, lambda: socket.create_connection(("127.0.0.1", port)), self.trust)

    def hawser(self, name, capture=True, store=None):
        """A sidecar; without a store it captures nothing."""
        cloud = types.SimpleNamespace(provider="cloud-a", endpoint=f"https://{HOST}:{self.port}", region="us-east-1")
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        binding = hawser.Binding(folder, [cloud], ["bench"])
        sidecar = hawser.Sidecar(folder, binding, store.url if store else "http://127.0.0.1:9", self.ca.pem,
                                 flags=[] if capture else ["--no-capture"]).start()

        def connect():
            plain = socket.create_connection(("127.0.0.1", int(sidecar.proxy.rsplit(":", 1)[1])))
            plain.sendall(f"CONNECT {HOST}:{self.port} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += plain.recv(1)
            return plain

        relay = Relay(name, sidecar.process, connect, ssl.create_default_context(cafile=str(sidecar.trust / "ca.pem")))
        relay.binding = binding
        return relay


class Relay:
    """A contender: a way to the origin, and the process whose seconds count."""

    def __init__(self, name, process, connect, trust):
        self.name, self.process, self._connect, self._trust = name, process, connect, trust

    def wire(self):
        """A TLS connection to the origin through it."""
        plain = self._connect()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._trust.wrap_socket(plain, server_hostname=HOST)

    def put(self, pieces, size):
        """Sends one object; gives (wall seconds, CPU seconds of the relay)."""
        wire = self.wire()
        cpu, begun = self.process.cpu_seconds(), time.monotonic()
        wire.sendall(f"PUT /bench/object HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n".encode())
        for piece in pieces:
            wire.sendall(piece)
        running.expect(wire.recv(1000).startswith(b"HTTP/1.1 200"), f"{self.name} relays a PUT")
        return self._done(wire, begun, cpu)

    def get(self, size):
        """Reads one object; gives (wall seconds, CPU seconds of the relay)."""
        wire, buffer = self.wire(), bytearray(1 << 20)
        cpu, begun = self.process.cpu_seconds(), time.monotonic()
        wire.sendall(f"GET /bench/object?bytes={size} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        seen = 0
        while seen < size:
            seen += wire.recv_into(buffer)
        return self._done(wire, begun, cpu)

    def _done(self, wire, begun, cpu):
        wall = time.monotonic() - begun
        wire.close()
        return wall, self.process.cpu_seconds() - cpu


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def relay(bench):
    """TLS relay of large bodies, both ways: nothing captured, blocks that the store has, blocks that it has not."""
    store = hawser.Store(bench.folder).start()
    nginx, off, on = bench.nginx(), bench.hawser("capture off", capture=False), bench.hawser("capture on", store=store)
    # What is to be known must have been captured whole once.
    running.expect(any(_capture(bench, on, store, "known", 0, pace)[0] for pace in (100, 50, 25, 12)),
                   "a body at 12 MiB/s is captured whole")
    for run in range(bench.runs):
        for contender in (nginx, off):
            bench.note("PUT", contender.name, **_sent(bench, *contender.put(body("known", bench.size, run), bench.size)))
        whole, numbers = _capture(bench, on, store, "known", run, 0)
        bench.note("PUT", "captured, blocks known", captured_whole=whole, **numbers)
        for contender, name in ((nginx, nginx.name), (off, off.name), (on, "captured, blocks known")):
            bench.note("GET", name, **_sent(bench, *contender.get(bench.size)))
    # Blocks that are new cost many times what the relay costs, and live bytes do not wait for them: as fast as a client
    # can send is more than the rest of a small machine can take. The fastest of these rates that is captured whole counts.
    attempt = bench.runs
    for kind in ("new", "text"):
        for pace in (0, 400, 200, 100, 50, 25):
            attempt += 1
            whole, numbers = _capture(bench, on, store, kind, attempt, pace)
            rate = f"at {pace} MiB/s" if pace else "unpaced"
            bench.note("PUT", f"captured, blocks {kind}, {rate}", captured_whole=whole, **numbers)
            if whole:
                break


def _sent(bench, wall, cpu):
    gib = bench.size / (1 << 30)
    return {"cpu_seconds_per_gib": cpu / gib, "gib_per_second": gib / wall}


def _capture(bench, relay, store, kind, run, pace):
    """Sends one object through a sidecar that captures. Whether all of it was captured, and what it cost."""
    kept, begun = store.process.cpu_seconds(), time.monotonic()
    before = len(hawser.cli("gaps", relay.binding, store, "--all"))
    numbers = _sent(bench, *relay.put(paced(body(kind, bench.size, run), pace), bench.size))
    running.until(lambda: _idle(store), "the store has taken everything", 120)
    stored, cpu = time.monotonic() - begun, store.process.cpu_seconds() - kept
    gaps = [gap["reason"] for gap in hawser.cli("gaps", relay.binding, store, "--all")]
    bench.reasons.update(gaps[before:])
    gib = bench.size / (1 << 30)
    return float(len(gaps) == before), numbers | {"store_cpu_seconds_per_gib": cpu / gib, "gib_per_second_until_stored": gib / stored}


_seen_cpu = {}


def _idle(store):
    """Whether the store has used no CPU since the last look a moment ago."""
    now, before = store.process.cpu_seconds(), _seen_cpu.get(store)
    _seen_cpu[store] = now
    return before == now


def requests(bench):
    """4 KiB requests on one kept-alive connection."""
    count = 2000
    contenders = [bench.nginx(), bench.hawser("no capture", capture=False),
                  bench.hawser("captured", store=hawser.Store(bench.folder / "origin-store").start())]
    for _ in range(bench.runs):
        for relay in contenders:
            wire, times, payload = relay.wire(), [], os.urandom(4096)
            cpu = relay.process.cpu_seconds()
            for number in range(count):
                begun = time.perf_counter()
                wire.sendall(f"PUT /bench/{number} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4096\r\n\r\n".encode() + payload)
                wire.recv(1000)
                times.append((time.perf_counter() - begun) * 1e6)
            cpu = relay.process.cpu_seconds() - cpu
            times.sort()
            bench.note("4 KiB requests", relay.name, p50_us=times[count // 2], p99_us=times[count * 99 // 100],
                       requests_per_second=1e6 * count / sum(times), cpu_us_per_request=cpu * 1e6 / count)
            wire.close()


def handshakes(bench):
    """New connections, TLS on both sides, one request each."""
    count = 300
    contenders = [bench.nginx(), bench.hawser("handshaking", capture=False)]
    for _ in range(bench.runs):
        for relay in contenders:
            cpu, begun = relay.process.cpu_seconds(), time.monotonic()
            for _ in range(count):
                wire = relay.wire()
                wire.sendall(f"PUT /bench/h HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode())
                wire.recv(1000)
                wire.close()
            bench.note("handshakes", relay.name, per_second=count / (time.monotonic() - begun),
                       cpu_ms_each=(relay.process.cpu_seconds() - cpu) * 1e3 / count)


def ingest(bench):
    """One file into an empty store over gRPC, then the same file again, beside restic and beside the disk alone. All three
    read the same file from memory; Hawser and dd end when it is durable."""
    env = machine.environment(RESTIC_PASSWORD="for-tests-only", XDG_CACHE_HOME=bench.folder)
    source, repository = bench.folder / "source", bench.folder / "restic"
    for run in range(bench.runs):
        for kind in ("new", "text"):
            with open(source, "wb") as file:
                for _ in range(bench.size >> 20):
                    file.write(os.urandom(1 << 20) if kind == "new" else os.urandom(1 << 19).hex().encode())
                os.fsync(file.fileno())
            row = f"ingest of {'incompressible' if kind == 'new' else 'compressible'} bytes"
            shutil.rmtree(repository, ignore_errors=True)
            running.run(["restic", "-q", "-r", repository, "init"], env).ok()
            folder = bench.folder / f"ingest-{run}-{kind}"
            store = hawser.Store(folder).start()
            copy = ["dd", f"if={source}", f"of={bench.folder / 'copy'}", "bs=1M", "conv=fdatasync", "status=none"]
            _ingested(bench, row, "dd with fdatasync", copy, env)
            for times in ("new", "again"):
                _ingested(bench, row, f"restic, {times}", ["restic", "-q", "-r", repository, "backup", "--force", source], env)
                said = _ingested(bench, row, f"hawser, {times}", [LOAD, store.url, source], env, store.process)
                sent = json.loads(said)
                blocks = bench.size // BLOCK
                running.expect(sent["offered"] == blocks and sent["wanted"] == (blocks if times == "new" else 0),
                               f"a file that is {times} is stored whole and once: {said}")
            store.stop()
            shutil.rmtree(folder)


def _ingested(bench, row, name, argv, env, server=None):
    """One run of a command that stores `bench.size` bytes; the CPU of its server counts too. What it printed."""
    gib, used = bench.size / (1 << 30), lambda: server.cpu_seconds() if server else 0
    before, kept = resource.getrusage(resource.RUSAGE_CHILDREN), used()
    done = running.run(argv, env).ok()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + used() - kept
    bench.note(row, name, gib_per_second=gib / done.seconds, cpu_seconds_per_gib=cpu / gib)
    return done.out


def replicate(bench):
    """From cloud A to cloud B: rclone copies, Hawser replicates what its store holds. Both servers are versitygw."""
    from lib.faults.world import BUCKET, World
    for run in range(bench.runs):
        folder = bench.folder / f"world-{run}"
        folder.mkdir()
        world = World(folder)
        world.store.start()
        small, large = 1000, 4
        for index in range(small):
            world.put(world.direct, f"small/{index}", 4096, index)
        for index in range(large):
            world.put(world.direct, f"large/{index}", 64 << 20, index)
        backfill = world.migrate("backfill").ok()
        bench.note("move", "hawser backfill", seconds=backfill.seconds)
        b, target = world.b, world.b.client()

        def remote(cloud, bucket):
            return (f":s3,provider=Other,access_key_id={cloud.access},secret_access_key={cloud.secret},region={cloud.region},"
                    f"endpoint='{cloud.endpoint}':{bucket}")

        target.create_bucket(Bucket="rclone")
        for part in ("small", "large"):
            done = running.run([machine.tool("rclone"), "copy", "--config", "/dev/null", "--ca-cert", world.ca.pem, "--transfers",
                                "16", "--checkers", "16", "--no-check-dest", f"{remote(world.a, BUCKET)}/{part}",
                                f"{remote(b, 'rclone')}/{part}"], machine.environment()).ok()
            bench.note(f"move, {part}", "rclone", seconds=done.seconds)
        world.binding.provider(b.provider)
        for part in ("small", "large"):
            done = world.migrate("replicate", "--prefix", f"{part}/").ok()
            bench.note(f"move, {part}", "hawser replicate", seconds=done.seconds)
        running.stop_all_but(bench.origin)


ROWS = {"relay": relay, "requests": requests, "handshakes": handshakes, "ingest": ingest, "replicate": replicate}


def table(results):
    """Medians of every contender, and its ratio to the first peer of the row."""
    for row, contenders in results.items():
        print(f"\n{row}")
        peers = [name for name in contenders if name.split(" ")[0].rstrip(",") in ("nginx", "rclone", "restic")]
        for name, numbers in contenders.items():
            # The peer that did the same: restic's second time for our second time.
            peer = next((peer for peer in peers if peer.rsplit(",")[-1] == name.rsplit(",")[-1]), next(iter(peers), None))
            cells = []
            for unit, values in numbers.items():
                middle = statistics.median(values)
                compared = peer and name not in peers and not name.startswith("dd ") and unit in contenders[peer]
                base = statistics.median(contenders[peer][unit]) if compared else 0
                cells.append(f"{unit} {middle:,.2f}" + (f" ({middle / base:.2f} ×)" if base else ""))
            print(f"  {name.ljust(40)} {'  '.join(cells)}")


def main():
    """Runs the chosen rows and prints the table; numbers of every run go into the JSON file."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("rows", nargs="*", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--size", type=int)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--json", default=str(machine.CACHE / "bench.json"))
    flags = parser.parse_args()
    flags.size, flags.runs = flags.size or (128 if flags.quick else 1024), flags.runs or (1 if flags.quick else 3)
    running.guard()
    about = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0], "body_mib": flags.size, "block_kib": BLOCK >> 10,
             "runs": flags.runs, "store": "zstd where it shrinks, one fdatasync for each group of records",
             "restic": "its defaults, no fsync asked", "kopia": "not measured: its Go module is not served everywhere",
             "tls": "TLS 1.3, P-256, on both sides of every relay"}
    print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    with running.Folder("bench") as folder:
        bench = Bench(folder, flags.size << 20, flags.runs)
        for row in flags.rows or ROWS:
            print(f"… {row}", flush=True)
            ROWS[row](bench)
            running.stop_all_but(bench.origin)
        table(bench.results)
        if bench.reasons:
            print(f"\nWhere captured_whole is below 1, the copy was given up on the way (a gap: {', '.join(sorted(bench.reasons))}):"
                  " such a row shows the relay's cost, not what capturing everything costs. Live bytes never waited.")
        with open(flags.json, "w") as file:
            json.dump({"about": about, "results": bench.results}, file, indent=1)
    print(f"\nevery number: {flags.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
