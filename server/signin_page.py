"""What a person sees who opens an address of the server without a session: how to get in. No script, no style, no input."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope

PAGE = b"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Cody: sign in</title>
<h1>This browser is not signed in</h1>
<p>Run <code>cody dashboard</code> in a terminal on this machine, and open the link that it prints. It works once, and for
two minutes.</p>
<p>Programs send <code>Authorization: Bearer TOKEN</code>; <code>cody token create</code> makes one.</p>
</html>
"""
HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-length", b"%d" % len(PAGE)),
    (b"vary", b"Accept, Authorization, Cookie"),
)


def is_wanted(scope: Scope) -> bool:
    """A person's browser that opens a page, by what only its navigations ask for; programs get JSON."""
    if scope["method"] not in {"GET", "HEAD"}:
        return False
    headers = dict(scope["headers"])
    return b"authorization" not in headers and b"text/html" in headers.get(b"accept", b"").lower()
