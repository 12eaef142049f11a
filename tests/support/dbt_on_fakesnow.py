"""dbt on an emulator of Snowflake: a program for an environment that has both.

    python dbt_on_fakesnow.py FOLDER OPTIONS

The folder is the one that the emulator keeps its databases in.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import sys

import fakesnow
from dbt.cli.main import dbtRunner

if __name__ == "__main__":
    with fakesnow.patch(db_path=sys.argv[1]):
        sys.exit(not dbtRunner().invoke(sys.argv[2:]).success)
