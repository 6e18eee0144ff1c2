"""The README's story as assertions, without its prose."""

from lib import demo, report, stories


@stories.story("demo", announced=demo.ANNOUNCED)
def readme(folder):
    """Everything that `e2e/demo` claims, on a fresh world."""
    demo.story(demo.World(folder), report.Report("  the steps of the demo:"))
