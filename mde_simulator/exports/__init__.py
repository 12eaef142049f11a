"""The vulnerability exports: snapshots, their records, and the host that stores their files."""
