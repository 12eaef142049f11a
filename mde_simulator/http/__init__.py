"""Sockets: the server, requests and responses as values, the journal of what came, throw-away certificates."""
