"""Secrets are found as they are, encoded, and cut anywhere; everything else passes untouched."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cody.redaction import Redactor, Secret, looks_secret, secrets_of

VALUE = 'sk-proj/A+b=c"d\\e ünï-0123456789'
REDACTOR = Redactor([Secret("OPENAI_API_KEY", VALUE)])
MARK = b"[redacted:OPENAI_API_KEY]"
RAW = VALUE.encode()


def encodings(value: str) -> list[bytes]:
    raw = value.encode()
    found = [
        raw,
        json.dumps(value).encode(),
        json.dumps(value, ensure_ascii=False).encode(),
        json.dumps(json.dumps({"out": value})).encode(),
        quote(value, safe="").encode(),
        quote_plus(value).encode(),
        quote(value, safe="").lower().encode() if value.islower() else quote(value).encode(),
        raw.hex().encode(),
        raw.hex().upper().encode(),
    ]
    for before in (b"", b"x", b"xy", b"user:"):
        found.append(base64.b64encode(before + raw + b" tail"))
        found.append(base64.urlsafe_b64encode(before + raw))
    return found


@pytest.mark.parametrize("form", encodings(VALUE))
def test_a_secret_is_found_in_every_form(form: bytes) -> None:
    cleaned = REDACTOR.clean(b"before " + form + b" after")
    assert MARK in cleaned
    assert cleaned.startswith(b"before ")
    assert cleaned.endswith(b" after")
    # Nothing that could be turned back: no run of the secret is left in the form it was in.
    core = form[6:-6] if len(form) > 24 else form
    assert core not in cleaned


@given(st.sampled_from(encodings(VALUE)), st.data())
def test_a_secret_that_is_cut_across_chunks_is_found(form: bytes, data: st.DataObject) -> None:
    whole = b"line one\n" + form + b"\nline two" + form
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    stream = REDACTOR.stream()
    parts = [stream.feed(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert b"".join([*parts, stream.finish()]) == REDACTOR.clean(whole)


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_what_is_no_secret_passes_untouched(chunks: list[bytes]) -> None:
    stream = REDACTOR.stream()
    assert b"".join([*map(stream.feed, chunks), stream.finish()]) == b"".join(chunks)


def test_only_the_possible_begin_of_a_secret_is_held_back() -> None:
    stream = REDACTOR.stream()
    assert stream.feed(b"progress 50%") == b"progress 50%"
    assert stream.feed(b" key=" + RAW[:5]) == b" key="
    assert stream.feed(b"nothing") == RAW[:5] + b"nothing"


def test_the_longest_of_two_overlapping_secrets_is_taken_whole() -> None:
    both = Redactor([Secret("A_KEY", "abcdefgh"), Secret("B_KEY", "abcdefghijkl")])
    assert both.clean(b"abcdefghijkl abcdefgh") == b"[redacted:B_KEY] [redacted:A_KEY]"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("OPENAI_API_KEY", True),
        ("GITHUB_TOKEN", True),
        ("token", True),
        ("DB_PASSWORD", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("MY_PAT", True),
        ("SENTRY_DSN", True),
        ("PATH", False),
        ("PWD", False),
        ("SSH_AUTH_SOCK", False),
        ("KEYBOARD", False),
        ("MONKEY", False),
        ("HOME", False),
    ],
)
def test_a_name_tells(name: str, secret: bool) -> None:
    assert looks_secret(name) is secret


def test_the_secrets_of_an_environment() -> None:
    env = {
        "API_KEY": "0123456789",
        "DEBUG_TOKEN": "on",
        "REDIS_URL": "redis://user:p%40ssw0rd@host:6379/0",
        "HOME": "/home/me",
        "BROKEN": "http://[::1",
    }
    assert {(one.name, one.value) for one in secrets_of(env)} == {
        ("API_KEY", "0123456789"),
        ("REDIS_URL", "p%40ssw0rd"),
        ("REDIS_URL", "p@ssw0rd"),
    }


def test_text_is_cleaned_too_and_nothing_configured_costs_nothing() -> None:
    assert REDACTOR.clean_text(f"{VALUE}!") == "[redacted:OPENAI_API_KEY]!"
    data = b"anything"
    assert Redactor([]).clean(data) is data
    assert Redactor([Secret("X", "short")]).stream().feed(data) is data
