"""Put states through Meltano's own state service: a program for an environment that has Meltano.

    python meltano_merge.py FOLDER RESULTS < HISTORIES

A history is a list of pairs: how a run ends, and its STATE. The results are the states that the next runs get.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import sys
from pathlib import Path

from meltano.core.db import project_engine
from meltano.core.job import Payload
from meltano.core.migration_service import MigrationService
from meltano.core.project import Project
from meltano.core.state_service import StateService

# As meltano.core.plugin.singer.target chooses it; --state-strategy=merge is the same as --full-refresh.
PAYLOADS = {"plain": Payload.STATE, "full refresh": Payload.INCOMPLETE_STATE}


def main(folder: Path, results: Path) -> None:
    """A state id for each history."""
    (folder / ".meltano").mkdir(parents=True)
    (folder / "meltano.yml").write_text("project_id: states\n")
    project = Project.find(folder, activate=False)
    engine, make_session = project_engine(project)
    MigrationService(engine).upgrade(silent=True)
    with make_session() as session:
        service = StateService(project, session)
        merged = []
        for number, history in enumerate(json.load(sys.stdin)):
            for ending, state in history:
                payload = json.dumps({"singer_state": state})
                if ending == "meltano state merge":
                    service.set_state(f"other {number}", payload)
                    service.merge_state(f"other {number}", f"{number}")
                else:
                    service.add_state(f"{number}", payload, payload_flags=PAYLOADS[ending])
            merged.append(service.get_state(f"{number}")["singer_state"])
    results.write_text(json.dumps(merged))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
