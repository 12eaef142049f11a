"""A bucket that speaks S3, served by moto out of an environment of its own; and the tables in it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import readme
from tests.support.environments import environment
from tests.support.warehouse import AskedWarehouse, Row, through_duckdb

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "my-bucket"
MOTO = "moto[s3,server]==5.2.5"


@dataclass(frozen=True)
class Storage:
    """A storage with one bucket.

    Attributes:
        url: Of its host.
        folder: Where copies of its files go.
        process: That serves it.
    """

    url: str
    folder: Path
    process: subprocess.Popen[str]

    @property
    def settings(self) -> dict[str, str]:
        """What plinxore-target-s3 needs, as `settings_of` takes it."""
        place = {"region": "eu-west-1", "bucket": BUCKET, "endpoint_override": self.url}
        who = {"access_key_id": "key", "secret_access_key": "none"}
        return {f"cloud_provider__aws__aws_{name}": value for name, value in {**place, **who}.items()}

    def copy(self) -> None:
        """Copy what it holds."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("copy\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline()


@contextmanager
def serve(environments: Path, folder: Path) -> Iterator[Storage]:
    """An empty bucket.

    Args:
        environments: where environments are kept.
        folder: where its log and copies of its files go.
    """
    python = environment(environments, [MOTO], ">=3.10,<3.14") / "python"
    command = [str(python), str(Path(__file__).with_name("fake_s3.py")), BUCKET, str(folder / BUCKET)]
    with (
        (folder / "storage.log").open("w") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout
            yield Storage(process.stdout.readline().strip(), folder / BUCKET, process)
        finally:
            process.kill()


@dataclass(frozen=True)
class StoredWarehouse(AskedWarehouse):
    """Files in a bucket, copied before each query."""

    storage: Storage | None = None

    def query(self, sql: str) -> list[Row]:
        """The rows that a query gives."""
        assert self.storage
        self.storage.copy()
        return super().query(sql)


def through_parquet(storage: Storage, folder: Path) -> StoredWarehouse:
    """The tables in a bucket, by the views of the docs."""
    views = readme.sql("parquet").replace(f"s3://{BUCKET}", str(storage.folder))
    asked = through_duckdb(Path(sys.executable), folder, ":memory:", f"SET timezone = 'UTC'; {views}")
    return StoredWarehouse(asked.command, asked.folder, asked.before, storage)
