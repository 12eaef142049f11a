"""The truth: machines, updates, CVEs, and who misses what on any day."""
