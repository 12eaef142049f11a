"""`dbt build` of the project in `transform/`, into the database of the streams; leaves no file in the checkout."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from demo.pipeline import PipelineError, program

if TYPE_CHECKING:
    from demo.postgres import Postgres

PROJECT = Path(__file__).parents[1] / "transform"


def build(database: Postgres, folder: Path) -> float:
    """Build the marts and test them.

    Args:
        database: What the streams were loaded to.
        folder: For what dbt leaves behind.

    Returns:
        How many seconds it took.

    Raises:
        PipelineError: A model or a test failed.
    """
    started = time.monotonic()
    place = {
        "PG_HOST": database.host,
        "PG_PORT": str(database.port),
        "PG_USER": database.user,
        "PG_PASSWORD": "",
        "PG_DATABASE": database.database,
    }
    dbt = subprocess.run(
        [
            *(program("dbt"), "--quiet", "--no-use-colors", "--log-path", str(folder / "logs")),
            *("build", "--target", "postgres"),
            *("--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--target-path", str(folder / "dbt")),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("DBT_")} | place,
        check=False,
    )
    if dbt.returncode != 0:
        message = f"dbt ended with status {dbt.returncode}:\n{dbt.stdout.strip()}"
        raise PipelineError(message)
    return time.monotonic() - started
