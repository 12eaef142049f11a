"""What goes wrong: which request meets a fault, and what the fault does to its response."""
