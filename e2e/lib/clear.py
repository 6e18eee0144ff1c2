"""Transparency with real clients. A story joins once it holds."""
