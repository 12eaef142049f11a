#!/usr/bin/env python3
"""Print a release's bill of materials, as CycloneDX: `.ci/sbom.py 0.1.0 > tap-mde-kbs-0.1.0.cdx.json`.

It lists what uv.lock has of the tap's dependencies, extras included: the versions that the release was tested with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

EXPORT = ["export", "--quiet", "--frozen", "--no-default-groups", "--all-extras", "--format", "cyclonedx1.5"]


def main() -> int:
    """Print it for the version that is named: the lock has none, since it comes from the tag."""
    version = sys.argv[1]
    command = [os.environ.get("UV", "uv"), *EXPORT]
    done = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - no shell; the words are those above
    bill = json.loads(done.stdout)
    bill["metadata"]["component"] |= {"version": version, "purl": f"pkg:pypi/tap-mde-kbs@{version}"}
    json.dump(bill, sys.stdout, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
