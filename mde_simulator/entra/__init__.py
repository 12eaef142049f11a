"""Entra ID: who may have a token, by which credential, and how others are refused."""
