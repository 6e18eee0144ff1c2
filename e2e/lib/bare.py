"""The application and the clouds without Hawser."""

import json

from lib import authority, clouds, dataset, ledger, machine, running, stories


@stories.story("clouds")
def bare(folder):
    """SeaweedFS and versitygw hold what the application's shorter phases write, exactly."""
    ca = authority.Authority(folder / "ca")
    for kind, provider in ((clouds.SeaweedFS, "cloud-a"), (clouds.Versitygw, "cloud-b")):
        cloud = kind(provider, folder, ca).start()
        book = folder / f"{provider}.json"
        for phase in ("early", "everyday"):
            running.run([machine.python(), machine.REPO / "e2e" / "lib" / "app.py", phase, "--bucket", "archive", "--data",
                         dataset.prepare(), "--ledger", book, "--aws", machine.tool("aws")],
                        machine.environment(**cloud.credentials(), AWS_CA_BUNDLE=ca.pem)).ok()
        ledger.expect_same(cloud.client(), "archive", json.loads(book.read_text()), kind.__name__)
