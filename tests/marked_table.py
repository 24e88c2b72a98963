"""Tables that a program writes into a document of docs/, between two comments that mark their place."""

from __future__ import annotations


def with_table(document: str, mark: str, table: str) -> str:
    """The document with the table between `<!-- MARK: begin -->` and `<!-- MARK: end -->`; raises ValueError without them."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    head, _, rest = document.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"no {begin} ... {end} in the document")
    return f"{head}{begin}\n{table}\n{end}{tail}"
