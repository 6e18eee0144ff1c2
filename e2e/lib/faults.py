"""The unhappy variants. A story joins once it holds."""
