"""Sockets: the server, requests and answers as values, the journal of what came, throw-away certificates."""
