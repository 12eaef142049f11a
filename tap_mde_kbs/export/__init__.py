"""The vulnerability export: its calls, its files or pages, its records, and a sweep's answers out of them."""
