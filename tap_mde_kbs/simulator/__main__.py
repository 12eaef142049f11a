"""`python -m tap_mde_kbs.simulator`."""

import sys

from tap_mde_kbs.simulator.cli import main

sys.exit(main())
