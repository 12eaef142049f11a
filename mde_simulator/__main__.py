"""`python -m mde_simulator`."""

import sys

from mde_simulator.cli import main

sys.exit(main())
