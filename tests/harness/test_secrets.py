"""A canary in every place a secret can come from, looked for in every place it could end up."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis

from cody.settings import Settings, load_settings
from tests.harness.conftest import Watched, serving

CANARY = "cAnary/7f3+Q=zz-0123456789"
OWN = "hostCanary_998877665544"
CONFIGURED = "the-configured-canary-value"

LEAK = """
    secret, own = os.environ["MY_API_KEY"], os.environ["OPENAI_API_KEY"]
    import base64, urllib.parse
    print("plain", secret, own, "the-configured-canary-value", flush=True)
    print(json.dumps({"deep": json.dumps({"x": secret})}), flush=True)
    print(base64.b64encode(b"user:" + secret.encode()).decode(), urllib.parse.quote(secret, safe=""), flush=True)
    print(secret.encode().hex(), flush=True)
    for character in secret:
        sys.stdout.write(character); sys.stdout.flush(); time.sleep(0.002)
    print()
    print(secret, file=sys.stderr, flush=True)
    say(type="file_written", path="dir/" + secret.replace("/", "_") + "/" + own)
    say(type="note.own", data={"k": secret})
    with open(EPIC / "codys-log.md", "a") as log: log.write("used " + secret + "\\n")
    open(own + ".txt", "w").write("x")
    if TURN == 2:
        STOP.write_text(secret)
"""


def forms(secret: str) -> list[bytes]:
    raw = secret.encode()
    return [
        raw,
        json.dumps(secret)[1:-1].encode(),
        quote(secret, safe="").encode(),
        raw.hex().encode(),
        *(base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)),
    ]


async def test_no_secret_is_in_any_event_log_row_or_file(
    workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OWN)
    monkeypatch.setenv("CODY_REDACT", CONFIGURED)
    settings: Settings = load_settings(state_dir=tmp_path / "state")
    sent: list[bytes] = []
    async with serving(settings) as service:
        request = workspace.request(LEAK, env={"MY_API_KEY": CANARY, "PLAIN": "visible-value"})
        answer = await service.start(request)
        sent.append(answer.model_dump_json(by_alias=True).encode())
        run = Watched(service, answer.run_id)
        run.listen()
        end = await run.end()
        assert end.status == "completed", end.error
        sent += [json.dumps(event).encode() for event in run.events]
        sent.append(end.model_dump_json(by_alias=True).encode())
        sent.append((await service.records.turns(run.run_id)).model_dump_json(by_alias=True).encode())
        sent.append((await service.prompt(run.run_id)).model_dump_json(by_alias=True).encode())
        log = (await service.output_file(run.run_id, 1)).read_text()
    # Not all is gone: what was redacted is marked, and what is no secret is there.
    assert "plain [redacted:MY_API_KEY] [redacted:OPENAI_API_KEY] [redacted:CODY_REDACT]" in log
    assert log.count("[redacted:MY_API_KEY]") >= 7
    assert end.config.env == {"MY_API_KEY": "[redacted:MY_API_KEY]", "PLAIN": "visible-value"}
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert any("appendonly" in str(path) for path in files)
    out, err = capfd.readouterr()
    sinks = {str(path): path.read_bytes() for path in files}
    sinks |= {"answers and events": b"\n".join(sent), "stdout": out.encode(), "stderr": err.encode()}
    for name, content in sinks.items():
        for secret in (CANARY, OWN, CONFIGURED):
            for form in forms(secret):
                assert form not in content, f"{form!r} in {name}"


async def test_a_sealed_secret_needs_the_same_key_elsewhere(workspace: Any, settings: Settings, redis: Redis) -> None:
    code = "Path('got.txt').write_text(os.environ['MY_TOKEN']); STOP.touch()"
    front = settings.model_copy(update={"concurrency": 0, "secret_key": "one key of many characters"})
    host = settings.model_copy(update={"state_dir": settings.state_dir.with_name("other")})
    async with serving(front) as service:
        run = Watched(service, (await service.start(workspace.request(code, env={"MY_TOKEN": CANARY}))).run_id)
        run.listen()
        async with serving(host):
            end = await run.end()
        assert end.error is not None
        assert (end.status, end.error.code) == ("failed", "secret_unreadable")
        assert "CODY_SECRET_KEY" in end.error.message
        again = Watched(service, (await service.start(workspace.request(code, env={"MY_TOKEN": CANARY}))).run_id)
        again.listen()
        async with serving(host.model_copy(update={"secret_key": front.secret_key})):
            assert (await again.end()).status == "completed"
    assert (workspace.path / "got.txt").read_text() == CANARY
