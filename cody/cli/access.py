"""The work of the commands about access."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence

from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from cody.cli import exits
from cody.cli.running import server_url
from cody.cli.terminal import print_json, print_table, stderr_console, stdout_console
from cody.cli.untrusted import one_line
from cody.client import credential_for
from cody.client.access import AccessClient
from cody.contracts.audit import AuditEntry, AuditPage, NewToken, TokenInfo, TokenPage, TokenScope
from cody.errors import InvalidRequest
from cody.settings import Settings
from cody.tokens import LOCAL


async def _connect(settings: Settings) -> AccessClient:
    url = await server_url(settings)
    return AccessClient(url, token=credential_for(settings, url))


async def show_link(settings: Settings, *, open_browser: bool) -> int:
    async with await _connect(settings) as client:
        link = await client.link()
    stdout_console().print(link.url, soft_wrap=True)
    if open_browser and not webbrowser.open(link.url):
        stderr_console().print("no browser could be started: open the link yourself", soft_wrap=True)
        return exits.ERROR
    return exits.OK


async def show_audit(settings: Settings, *, limit: int, json: bool) -> int:
    async with await _connect(settings) as client:
        entries = await client.audit(limit=limit)
    if json:
        print_json(AuditPage(entries=entries))
    else:
        print_table(stdout_console(), audit_table(entries))
    return exits.OK


async def create_token(settings: Settings, name: str, scope: TokenScope, *, json: bool) -> int:
    async with await _connect(settings) as client:
        try:
            made = await client.create_token(name, scope)
        except ValidationError:
            raise InvalidRequest(
                f"{one_line(name, 80)!r} is not a token's name: small letters, digits, '.', '_', '-', at most 64"
            ) from None
    return _show_new(made, json=json)


async def list_tokens(settings: Settings, *, json: bool) -> int:
    async with await _connect(settings) as client:
        tokens = await client.tokens()
    if json:
        print_json(TokenPage(tokens=tokens))
    else:
        print_table(stdout_console(), tokens_table(tokens))
    return exits.OK


async def rotate_token(settings: Settings, name: str, *, json: bool) -> int:
    async with await _connect(settings) as client:
        made = await client.rotate_token(name)
    if name == LOCAL and not json:
        # The CLI reads it from the state folder; on a screen it would only be one more copy.
        stderr_console().print("the local token has a new value; the CLI uses it already", soft_wrap=True)
        return exits.OK
    return _show_new(made, json=json)


async def revoke_token(settings: Settings, name: str) -> int:
    async with await _connect(settings) as client:
        await client.revoke_token(name)
    stderr_console().print(f"token {one_line(name)} counts no more", soft_wrap=True)
    return exits.OK


def _show_new(made: NewToken, *, json: bool) -> int:
    if json:
        print_json(made)
    else:
        stdout_console().print(made.token, soft_wrap=True)
        stderr_console().print(f"token {made.name}, scope {made.scope}: it is not shown again", soft_wrap=True)
    return exits.OK


def audit_table(entries: Sequence[AuditEntry]) -> Table:
    """One row a change."""
    table = _table("WHEN", "WHO", "SCOPE", "WHAT", "ON", "FROM", "STATUS")
    for entry in entries:
        status = Text(str(entry.status), "red" if entry.status >= 400 else "green")
        about = entry.run_id[:8] if entry.run_id else entry.token or ""
        cells = [entry.ts, entry.who, entry.scope, entry.action, about, entry.source]
        table.add_row(*(Text(one_line(cell)) for cell in cells), status)
    return table


def tokens_table(tokens: Sequence[TokenInfo]) -> Table:
    """One row a token."""
    table = _table("NAME", "SCOPE", "MADE")
    for one in tokens:
        table.add_row(*(Text(one_line(cell)) for cell in (one.name, one.scope, one.created_at)))
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=True)
    return table
