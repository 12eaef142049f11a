"""The API: the client and what an answer means, sessions, sign-in, bounds for HTTP, the quota. Knows no Singer."""
