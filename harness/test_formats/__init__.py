"""The summaries that test runners print at the end of a run: one reader for each format. Pure.

A reader takes lines without colours and newline, holds a few numbers, and matches whole lines only: "5 passed" in a
sentence is no summary. Versions whose output was recorded: tests/fixtures/test_output/README.md.

What counts as what, where a runner has more words than passed, failed and skipped:
- failed: errors (fixtures, files that do not load, unhandled rejections), cancelled, unexpected successes of unittest
- skipped: xfailed, expected failures, todo, ignored
- passed: xpassed (pytest lets the run succeed)
- not counted: deselected, filtered out, measured
"""
