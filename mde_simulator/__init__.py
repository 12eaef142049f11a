"""A Microsoft Defender for Endpoint tenant on loopback, to build and test against.

    with Simulator(Fleet(machines=250, seed=1)) as simulator:
        simulator.config      # the tap's settings
        simulator.fleet       # the truth
        simulator.violations  # what a client did wrong
        simulator.exports     # the vulnerability exports, and the truth about the latest
    simulator.settings_for("certificate")  # the settings for another credential, made here

`mde-simulator` is the same from the command line. The tap itself never imports this package.
"""

from mde_simulator.defender.quota import EXPORT, EXPORT_JSON, Quota
from mde_simulator.entra.federation import Issuer
from mde_simulator.exports.exports import Exports
from mde_simulator.exports.records import ExportShape
from mde_simulator.faults.fault import Fault
from mde_simulator.faults.faults import Faults
from mde_simulator.fleet.fleet import Fleet
from mde_simulator.simulator import Simulator

__all__ = [
    "EXPORT",
    "EXPORT_JSON",
    "ExportShape",
    "Exports",
    "Fault",
    "Faults",
    "Fleet",
    "Issuer",
    "Quota",
    "Simulator",
]
