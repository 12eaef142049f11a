"""A Microsoft Defender for Endpoint tenant on loopback, to build and test against.

    with Simulator(Fleet(machines=250, seed=1)) as simulator:
        simulator.config      # the tap's settings
        simulator.fleet       # the truth
        simulator.violations  # what a client did wrong
        simulator.exports     # the vulnerability exports, and the truth about the latest
    simulator.settings_for("certificate")  # the settings for another credential, made here

`mde-simulator` is the same from the command line. The tap itself never imports this package.
"""

from tap_mde_kbs.simulator.exports import Exports
from tap_mde_kbs.simulator.faults import Fault, Faults
from tap_mde_kbs.simulator.federation import Issuer
from tap_mde_kbs.simulator.fleet import Fleet
from tap_mde_kbs.simulator.quota import EXPORT, EXPORT_JSON, Quota
from tap_mde_kbs.simulator.records import ExportShape
from tap_mde_kbs.simulator.simulator import Simulator

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
