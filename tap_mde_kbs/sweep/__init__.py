"""One pass over all machines: who is asked when, what is believed, when it is complete. No HTTP, no Singer."""
