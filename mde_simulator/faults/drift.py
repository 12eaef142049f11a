"""A world that moved on: fields, types and words that are not documented, of machines unless told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mde_simulator.faults.fault import LIST, kind, of_payload

if TYPE_CHECKING:
    from mde_simulator.faults.fault import Strike


@kind("new_field", LIST, "each entry has a field more, called `text` or assetOwner, with its name or id in it")
@of_payload
def _new_field(payload: Any, strike: Strike) -> object:
    name = strike.fault.text or "assetOwner"
    entries = [{**entry, name: entry.get("computerDnsName") or entry["id"]} for entry in payload["value"]]
    return payload | {"value": entries}


@kind("new_type", LIST, "a field of each entry, `text` or agentVersion, is an object with the value in it")
@of_payload
def _new_type(payload: Any, strike: Strike) -> object:
    name = strike.fault.text or "agentVersion"
    return payload | {"value": [{**entry, name: {str(entry[name]): entry[name]}} for entry in payload["value"]]}


@kind("new_word", LIST, "each entry has a healthStatus that is not documented: `text` or Quarantined")
@of_payload
def _new_word(payload: Any, strike: Strike) -> object:
    word = strike.fault.text or "Quarantined"
    return payload | {"value": [{**entry, "healthStatus": word} for entry in payload["value"]]}
