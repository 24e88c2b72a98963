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


LONG = "sk-proj-" + "".join(chr(ord("A") + (n * n * 7 + n // 3) % 26) + str(n % 10) for n in range(78))
LONG_REDACTOR = Redactor([Secret("OPENAI_API_KEY", LONG)])


def lines_of(text: bytes, columns: int, line_end: bytes) -> bytes:
    return line_end.join(text[at : at + columns] for at in range(0, len(text), columns)) + line_end


def printed(before: bytes, value: str) -> list[tuple[bytes, int]]:
    """The value behind other bytes as `base64` and `xxd -p` print it, without the line ends, and their columns."""
    raw = before + value.encode() + b"\n"
    return [(base64.b64encode(raw), 76), (base64.b64encode(raw), 64), (raw.hex().encode(), 60)]


def long_pieces_left(cleaned: bytes, text: bytes, size: int) -> list[bytes]:
    """What of the text can still be read in lines that were cleaned."""
    return [text[at : at + size] for at in range(len(text) - size + 1) if text[at : at + size] in cleaned]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\\n", b"\\r\\n", b"\\\\n"])
@pytest.mark.parametrize("value", [LONG, "p4ssw0rd-of-24-chars-xyz", "cody_" + LONG[8:51]])
def test_a_secret_that_is_printed_in_lines_is_found_wherever_the_lines_end(value: str, line_end: bytes) -> None:
    redactor = Redactor([Secret("K", value)])
    for size in range(80):
        before = b"x" * size
        for text, columns in printed(before, value):
            cleaned = redactor.clean(b"before " + lines_of(text, columns, line_end) + b"after")
            assert b"[redacted:K]" in cleaned, (size, columns)
            # All but what a secret shares its last and first groups of base64 with; the `x` before it are no secret.
            begin = size * 2 if columns == 60 else -(-size // 3) * 4
            assert long_pieces_left(cleaned, text[begin:], 8) == [], (size, columns)


@given(st.integers(0, 80), st.integers(0, 2), st.sampled_from([b"\n", b"\r\n", b"\\n"]), st.data())
def test_lines_that_are_cut_across_chunks_are_cleaned_as_the_whole(
    size: int, kind: int, line_end: bytes, data: st.DataObject
) -> None:
    whole = b"a\n" + lines_of(*printed(b"x" * size, LONG)[kind], line_end) + b"the end\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    stream = LONG_REDACTOR.stream()
    parts = [stream.feed(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert b"".join([*parts, stream.finish()]) == LONG_REDACTOR.clean(whole)
    assert MARK in b"".join(parts)


@given(st.lists(st.sampled_from([LONG[:9], LONG.encode().hex()[:24], "\n", "\\n", "x", LONG]), max_size=12), st.data())
def test_what_only_begins_like_a_secret_is_told_in_the_end(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    stream = LONG_REDACTOR.stream()
    parts = [stream.feed(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert b"".join([*parts, stream.finish()]) == LONG_REDACTOR.clean(whole)


def test_keys_that_begin_alike_are_each_found_in_lines() -> None:
    first, second = LONG, LONG[:100] + LONG[40:104]
    redactor = Redactor([Secret("A", first), Secret("B", second)])
    for name, value in (("A", first), ("B", second)):
        for text, columns in printed(b"", value):
            cleaned = redactor.clean(lines_of(text, columns, b"\n"))
            assert f"[redacted:{name}]".encode() in cleaned
            assert long_pieces_left(cleaned, text, 8) == []


def test_many_secrets_are_found_too() -> None:
    many = [Secret(f"K{n}", f"{n:03}-{LONG[n:]}") for n in range(100)]
    redactor = Redactor(many)
    for one in many:
        assert redactor.clean(f"a {one.value} b".encode()) == f"a [redacted:{one.name}] b".encode()
    assert redactor.clean(b"a b") == b"a b"


@pytest.mark.parametrize(
    "form",
    [
        "p%40ss!word(1)%2F%3C%26%3E",  # encodeURIComponent
        "p%40ss!word(1)%2f%3c%26%3e",
        "p@ss!word(1)\\/<&>",  # PHP
        "p@ss!word(1)/\\u003c\\u0026\\u003e",  # Go
        "p@ss!word(1)/\\\\u003c\\\\u0026\\\\u003e",
        "p@ss!word(1)\\\\/<&>",
    ],
)
def test_a_secret_is_found_as_other_languages_write_it(form: str) -> None:
    assert Redactor([Secret("X", "p@ss!word(1)/<&>")]).clean_text(f"a {form} b") == "a [redacted:X] b"


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


@pytest.mark.parametrize("rest", ["ijkl", "ijk", "ijxx", ""])
def test_a_secret_that_may_become_a_longer_one_waits(rest: str) -> None:
    both = Redactor([Secret("A_KEY", "abcdefgh"), Secret("B_KEY", "abcdefghijkl"), Secret("C_KEY", "xxabcdefgh_more")])
    for before in ("", "x", "xx"):
        whole = f"{before}abcdefgh{rest}".encode()
        for cut in range(len(whole) + 1):
            stream = both.stream()
            told = stream.feed(whole[:cut]) + stream.feed(whole[cut:]) + stream.finish()
            assert told == both.clean(whole), (whole, cut)
    stream = both.stream()
    assert stream.feed(b"abcdefgh") == b""
    assert stream.feed(b"ijkl") == b"[redacted:B_KEY]"
    assert stream.feed(b"abcdefgh") + stream.feed(b" ") == b"[redacted:A_KEY] "


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
        ("PGPASSWORD", True),
        ("MYSQL_PWD", True),
        ("DB_PASS", True),
        ("PASS", True),
        ("SSHPASS", True),
        ("rootpasswd", True),
        ("SECRETS", True),
        ("APPSECRET", True),
        ("ACCESSKEY", True),
        ("PRIVATEKEY", True),
        ("AUTHTOKEN", True),
        ("API_TOKENS", True),
        ("GOOGLE_APPLICATION_CREDENTIALS", True),
        ("SSH_PASSPHRASE", True),
        ("HTTP_AUTHORIZATION", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("MAX_TOKENS", False),
        ("CLAUDE_CODE_MAX_OUTPUT_TOKENS", False),
        ("TOKEN_LIMIT", False),
        ("TOKENS_PER_MINUTE", False),
        ("COMPASS", False),
        ("BYPASS_CACHE", False),
        ("AUTHOR", False),
        ("GIT_AUTHOR_NAME", False),
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
