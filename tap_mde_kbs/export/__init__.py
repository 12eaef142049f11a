"""The vulnerability export: its calls, its files, its records, and the answers out of it."""
