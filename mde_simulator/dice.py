"""Chance that repeats itself: the same seed, the same draws. Knows nothing of what is drawn for."""

import random


def dice(*parts: object) -> random.Random:
    """A generator of its own for every purpose, so that one draw more moves nothing else."""
    seed = "/".join(str(part) for part in parts)
    return random.Random(seed)  # noqa: S311 - a made-up fleet, nothing to keep secret
