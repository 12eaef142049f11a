"""Entra ID: who may have a token, by which credential, and what is said to whoever may not."""
