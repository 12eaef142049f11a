"""What `make demo` shows: the real tap and a real PostgreSQL, with a simulated tenant."""
