"""The demo as assertions. A story joins once it holds."""
