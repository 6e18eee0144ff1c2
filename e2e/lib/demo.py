"""The main job, on one machine: an application that knows nothing of Hawser writes to cloud A; cloud A is
switched off; one word of a binding is edited; cloud B holds every object, byte for byte, metadata included."""

import json
import sys

from lib import authority, clouds, dataset, hawser, ledger, machine, report, running

BUCKET = "archive"
# What Hawser may log as WARN in this story: nothing.
ANNOUNCED = ()


class World:
    """Two clouds, a store, a sidecar and an application in one temporary folder."""

    def __init__(self, folder):
        self.folder = folder
        self.ca = authority.Authority(folder / "ca")
        self.a = clouds.SeaweedFS("cloud-a", folder, self.ca)
        self.b = clouds.Versitygw("cloud-b", folder, self.ca)
        self.binding = hawser.Binding(folder, [self.a, self.b], [BUCKET])
        self.store = hawser.Store(folder)
        self.sidecar = hawser.Sidecar(folder, self.binding, self.store.url, self.ca.pem)
        self.data = dataset.prepare()
        self.ledger_file = folder / "ledger.json"

    def app(self, phase, variables):
        """Runs one phase of the application with `variables` beside its endpoint and credentials."""
        done = running.run(
            [machine.python(), machine.REPO / "e2e" / "lib" / "app.py", phase, "--bucket", BUCKET, "--data", self.data,
             "--ledger", self.ledger_file, "--aws", machine.tool("aws")],
            machine.environment(**(self.a.credentials() | variables))).ok()
        return json.loads(done.out)

    def ledger(self):
        """What the application wrote and expects to find."""
        return json.loads(self.ledger_file.read_text())

    def migrate(self, verb, *flags, **more):
        """`hawser-migrate VERB` with the credentials of both clouds."""
        return hawser.migrate(verb, self.binding, self.store, [self.a, self.b], self.ca.pem, *flags, **more)

    def rclone_hashes(self, cloud):
        """SHA-256 of every object of a cloud's bucket, as rclone reads them."""
        return running.run(
            [machine.tool("rclone"), "hashsum", "sha256", "--download", "--checkers", "8", f":s3:{BUCKET}",
             "--s3-endpoint", cloud.endpoint, "--s3-provider", "Other", "--s3-access-key-id", cloud.access,
             "--s3-secret-access-key", cloud.secret, "--s3-region", cloud.region, "--ca-cert", self.ca.pem,
             "--config", "/dev/null"], machine.environment()).ok().out


PHASES = [
    ("first_release", "aws-cli uploads the first release of a source tree"),
    ("second_release", "boto3 overwrites it with the second, deletes what is gone"),
    ("backups", "boto3 and aws-cli upload and overwrite files of 100 MB, in parts"),
    ("everyday", "headers, odd keys, copies, tags, parts by hand, deletes"),
    ("reads", "whole and ranged reads give back what was written"),
]


def story(world, out):
    """The whole story on `world`, told to `out`. Raises [`running.Failed`] where it does not hold."""
    with out.step("two clouds start: A is SeaweedFS, B is versitygw"):
        world.a.start()
        world.b.start()
    with out.step("A already holds objects that Hawser never saw") as said:
        said.append(f"{world.app('early', {'AWS_CA_BUNDLE': world.ca.pem})['objects']} objects")
    with out.step("the store and a sidecar start"):
        world.store.start()
        world.sidecar.start()
    written = 0
    for phase, text in PHASES:
        with out.step(text) as said:
            did = world.app(phase, world.sidecar.variables())
            written += did["written_bytes"]
            said += [f"{report.human(did[name])} {verb}" for name, verb in
                     (("written_bytes", "written"), ("read_bytes", "read")) if did[name]]
    book = world.ledger()
    with out.step("backfill: what A lists and the store lacks is fetched") as said:
        fetched = world.migrate("backfill").ok().out
        said += [" ".join(line.split()) for line in fetched.splitlines() if "objects fetched" in line]
    with out.step("the store's own S3 face shows the same objects"):
        ledger.expect_same(world.store.client(), BUCKET, book, "the copy in the store", bodies=False)
    with out.step("hawser status: coverage and savings") as said:
        status = hawser.cli("status", world.binding, world.store)
        coverage, gaps = status[0]["coverage"], status[0]["openGaps"]
        running.expect(coverage["heldObjects"] == coverage["listedObjects"] == len(book), f"coverage is not whole: {coverage}")
        running.expect(not gaps, f"gaps are open after a backfill: {gaps}")
        said.append(f"{coverage['heldObjects']:,} of {coverage['listedObjects']:,} objects held")
    with out.step("cloud A is switched off"):
        world.a.kill()
    with out.step(f"spec.provider becomes {world.b.provider}, hawser-migrate replicate"):
        world.binding.provider(world.b.provider)
        world.migrate("replicate").ok()
        force = hawser.cli("status", world.binding, world.store)[0]["providerInForce"]
        running.expect(force == world.b.provider, f"the provider in force is {force}")
    with out.step("boto3 compares B with what was written: bytes, headers, metadata, tags"):
        ledger.expect_same(world.b.client(), BUCKET, book, "cloud B")
    with out.step("rclone reads B and finds the same hashes"):
        ledger.expect_same_hashes(world.rclone_hashes(world.b), book, "cloud B, read by rclone")
    return book, written, status


def expect_quiet(world, announced=()):
    """Fails if a part of Hawser said ERROR or WARN."""
    loud = running.surprises(world.folder.glob("s*.log"), announced)
    running.expect(not loud, "lines nobody announced:\n  " + "\n  ".join(loud[:20]))


def main():
    """Runs the story and prints its report; the exit code is 0 only if all of it held."""
    running.guard()
    out = report.Report("Hawser: one application, two clouds, one word edited.\n")
    try:
        with running.Folder("demo") as folder:
            world = World(folder)
            book, written, status = story(world, out)
            expect_quiet(world, ANNOUNCED)
            out.table(summary(book, written, status))
    except running.Failed as failure:
        print(f"\n{failure}\n\nNot everything held.", file=sys.stderr)
        return 1
    print(f"\nEverything held, in {out.seconds():.0f} s.")
    return 0


def summary(book, written, status):
    """The table at the end: what moved, what the copy cost."""
    binding, kept = status[0], status[-1]["store"]
    coverage = binding["coverage"]
    return [
        ("objects in B as written", f"{len(book):,}"),
        ("their bytes", report.human(ledger.size(book))),
        ("bytes the application wrote", report.human(written)),
        ("coverage of A before it went", f"{coverage['heldObjects']:,} of {coverage['listedObjects']:,} objects, "
                                         f"{report.human(coverage['heldBytes'])} of {report.human(coverage['listedBytes'])}"),
        ("in the store, all versions", report.human(kept["logicalBytes"])),
        ("distinct", f"{report.human(kept['uniqueBytes'])}, {_saved(kept['logicalBytes'], kept['uniqueBytes'])}"),
        ("on disk", f"{report.human(kept['storedBytes'])}, {_saved(kept['logicalBytes'], kept['storedBytes'])}"),
        ("open gaps", binding["openGaps"] or "none"),
    ]


def _saved(before, after):
    return f"{100 * (before - after) / before:.0f} % saved" if before else "nothing to save"


if __name__ == "__main__":
    sys.exit(main())
