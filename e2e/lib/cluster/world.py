"""The world of the stories in a cluster: the cluster itself, two real S3 services on the node's address, the release.
One world for all stories, a namespace for each; whatever happens, it is taken away at the end."""

import importlib
import os
import pathlib
import time

from lib import authority, clouds, machine, running
from lib.cluster import kubernetes

RELEASE = "hawser-system"
SCRIPTS = machine.REPO / "e2e" / "cluster"
_MODULES = ("gestures", "outages", "admission", "leaving")
_known = {}


class CloudA(clouds.SeaweedFS):
    """SeaweedFS, where pods of the node reach it."""

    address = kubernetes.NODE


class CloudB(clouds.Versitygw):
    """versitygw, where pods of the node reach it."""

    address = kubernetes.NODE


class World:
    """What every story finds: `cluster`, the clouds `a` and `b`, and the authority that signed for both."""

    def __init__(self, folder, config):
        self.folder, self.cluster = folder, kubernetes.Kubernetes(config)
        self.ca = authority.Authority(folder / "ca")
        self.a, self.b = CloudA("cloud-a", folder, self.ca), CloudB("cloud-b", folder, self.ca)

    def clouds(self):
        """Starts both."""
        for cloud in (self.a, self.b):
            if cloud.process is None:
                cloud.start()

    def install(self):
        """The README's command, and everything of it ready. Bound to five minutes."""
        begun = time.monotonic()
        self.cluster.kubectl("delete", "namespace", RELEASE, "--ignore-not-found", "--wait", seconds=120).ok()
        self.free_volumes()
        self.install_again()
        running.expect(time.monotonic() - begun < 300, "from helm install to a ready release took more than five minutes")

    def install_again(self):
        """Installs the release into its namespace, onto the volume that is there."""
        self.cluster.helm("install", "hawser", machine.REPO / "charts" / "hawser", "--namespace", RELEASE, "--create-namespace",
                          "--wait", "--timeout", "5m", *self.values(), seconds=330)

    def upgrade(self, *values):
        """Upgrades the release to the stories' values and `values`."""
        sets = [word for value in values for word in ("--set", value)]
        self.cluster.helm("upgrade", "hawser", machine.REPO / "charts" / "hawser", "--namespace", RELEASE, "--wait", "--timeout",
                          "2m", *self.values(), *sets, seconds=150)

    def values(self):
        """Values that make the stories shorter than a day: nothing of them changes what is done."""
        return ["--set", "store.settle=5s", "--set", "store.sessionLease=10s", "--set", "store.storage.size=10Gi"]

    def free_volumes(self):
        """Volumes on local disk that were given back are emptied and offered again."""
        for volume in self.cluster.get("persistentvolumes"):
            if volume.get("status", {}).get("phase") == "Released" and volume["metadata"]["name"].startswith("local-"):
                folder = pathlib.Path(volume["spec"]["local"]["path"])
                if folder.is_dir() and machine.CACHE in folder.parents:
                    running.run(["find", folder, "-mindepth", "1", "-delete"], machine.environment()).ok()
                self.cluster.kubectl("patch", "persistentvolume", volume["metadata"]["name"], "--type", "json",
                                     "--patch", '[{"op": "remove", "path": "/spec/claimRef"}]').ok()

    def uninstall(self):
        """Takes the release away, its namespace and what it left there."""
        running.run([kubernetes.PROGRAMS / "helm", "--kubeconfig", self.cluster.config, "uninstall", "hawser", "--namespace",
                     RELEASE, "--ignore-not-found", "--wait", "--timeout", "2m"], self.cluster.env, 150)
        self.cluster.kubectl("delete", "namespace", RELEASE, "--ignore-not-found", seconds=120)


class Story:
    """A function on a world and a shop of its own."""

    def __init__(self, function):
        self.function = function

    def run(self, world):
        """Tells it in a fresh namespace, which goes afterwards; what it was like is kept where it failed."""
        from lib.cluster import shop
        place = shop.Shop(world, self.function.__name__.replace("_", "-"))
        try:
            world.clouds()
            place.open()
            self.function(world, place)
            place.expect_no_secrets()
        except BaseException:
            for namespace in (place.namespace, RELEASE):
                try:
                    world.cluster.remembers(world.folder / "kept" / self.function.__name__, namespace)
                except Exception as error:  # noqa: BLE001: the story's own failure is what a person must see
                    print(f"  what {namespace} was like could not be kept: {error}")
            raise
        finally:
            place.close()


def story(function):
    """Registers a story."""
    _known[function.__name__] = Story(function)
    return function


def stories():
    """All stories by name, in the order of their files."""
    for module in _MODULES:
        importlib.import_module(f"lib.cluster.{module}")
    return _known


def told(tally, chosen):
    """The stage: boots, imports, installs, tells, takes away. A cluster that HAWSER_E2E_KUBECONFIG names is neither
    booted nor taken away: it has the images, resolves every name under .test to this machine, and has nothing of Hawser."""
    known = stories()
    wrong = [name for name in chosen if name not in known]
    if wrong:
        raise SystemExit(f"e2e/test: cluster has no story {', '.join(wrong)}; it has {', '.join(known)}")
    foreign = os.environ.get("HAWSER_E2E_KUBECONFIG")
    config = foreign or str(machine.CACHE / "kube" / "state" / "kubeconfig")
    script = lambda name, seconds: running.run([SCRIPTS / name], os.environ | {"NO_COLOR": "1"}, seconds)  # noqa: E731
    held = True
    try:
        if not foreign:
            # apt, pip and the Go proxy need this machine's habits, so the scripts get its environment as it is.
            if not (tally.judge("cluster up", lambda: script("up", 3000).ok() and None)
                    and tally.judge("cluster images", lambda: script("images", 900).ok() and None)):
                return False
        with running.Folder("cluster") as folder:
            world = World(folder, config)
            try:
                if not tally.judge("cluster install", world.install):
                    world.cluster.remembers(folder / "kept" / "install", RELEASE)
                    raise running.Failed("the release did not get ready; no story was told")
                for name, one in known.items():
                    if not chosen or name in chosen:
                        held = tally.judge(f"cluster {name}", lambda one=one: one.run(world)) and held
                if not held:
                    raise running.Failed("stories failed, as said above")
            finally:
                world.uninstall()
    except running.Failed as failure:
        print(failure)
        held = False
    finally:
        if not foreign:
            held = tally.judge("cluster down", lambda: script("down", 300).ok() and None) and held
    return held
