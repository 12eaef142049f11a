"""Faults: what goes wrong. Each kind of fault is one entry: its rule, its help text and its effect.

A new kind is a function in one of these modules, under `@kind(…)`; nothing else has to know of it.
"""

from mde_simulator.faults import answers, drift, feeds, files, hostile, lies, lists, sign_in

__all__ = ["answers", "drift", "feeds", "files", "hostile", "lies", "lists", "sign_in"]
