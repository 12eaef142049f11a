"""The API: what an answer means, the session and its sign-in, HTTP with bounds, the quota."""
