"""A storage that speaks S3, on loopback, out of an environment that has moto.

    python fake_s3.py BUCKET FOLDER

Writes its URL in a line. For each line of stdin it copies what the bucket holds into the folder, and writes a line when
that is done; it ends with stdin.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import sys
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

REGION = "eu-west-1"


def main(bucket: str, folder: Path) -> None:
    """Serve until stdin ends."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    who = {"aws_access_key_id": "key", "aws_secret_access_key": "none"}
    client = boto3.client("s3", endpoint_url=url, region_name=REGION, **who)
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    print(url, flush=True)  # noqa: T201 - what its caller reads
    for _ in sys.stdin:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page.get("Contents", ()):
                path = folder / entry["Key"]
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, entry["Key"], str(path))
        print("copied", flush=True)  # noqa: T201 - what its caller waits for
    server.stop()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
