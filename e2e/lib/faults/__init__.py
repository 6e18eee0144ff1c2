"""The unhappy variants of the story, each on a world of its own. A story joins once it holds."""

from lib.faults import migration, outage, writers  # noqa: F401: importing registers their stories
