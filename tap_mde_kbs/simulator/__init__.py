"""A Defender for Endpoint tenant on loopback, to build and test against without one."""
