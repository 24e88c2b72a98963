"""Search finds what was said, run, printed and logged; and nothing that can be typed into it is an error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from cody.errors import InvalidRequest
from cody.pipeline.archive import Archive, Cursor, Document, RunBatch
from cody.pipeline.run_projector import RunProjector
from cody.pipeline.search_text import (
    LEAD_CHARS,
    SNIPPET_CHARS,
    fts5_query,
    phrases,
    searchable,
    snippet,
    tsquery,
    tsvector,
    words,
)
from tests.pipeline.live_runs import answered, called, live_run, logged, printed, said, until_still, warning

ATTACKS = [
    '"',
    '""',
    '"""',
    "'",
    "';DROP TABLE runs;--",
    '" OR 1=1 --',
    "AND",
    "OR",
    "NOT NOT",
    "NEAR(a b, 3)",
    "text:alpha",
    "alpha*",
    "^alpha",
    "-alpha",
    "+alpha",
    "(alpha",
    ")",
    "alpha)",
    "{text}: alpha",
    "a & b | !c",
    "a <-> b",
    "'a':*",
    "\\",
    "alpha\\'",
    "%",
    "_",
    "?",
    ":query",
    "$1",
    "\0",
    "al\0pha",
    "\ud800",
    "al\ud800pha",
    "\u202e\ufeff",
    "İSTANBUL ß ſ",
    "हिन्दी",
    "e\u0301",
    "🙂",
    "",
    " \t\n",
    "x" * 10_000,
    "x " * 5_000,
    '"' * 10_000,
    "(" * 10_000,
    '"a b ' * 2_000,
    "a.b/c_d-e",
]


async def put(archive: Archive, *texts: str, run_id: str = "r") -> None:
    documents = [Document("message", text, run_id, seq=number) for number, text in enumerate(texts)]
    before = await archive.cursor(run_id)
    assert await archive.record(run_id, before, RunBatch(run=None, known_seq=0, documents=documents))


async def found(archive: Archive, query: str) -> list[str]:
    return [hit.snippet for hit in (await archive.search(query, limit=50)).hits]


async def test_what_a_run_said_ran_printed_and_logged_is_found(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    await run.emit(
        said("I will look at the parser first", turn=2),
        called("rg -n 'def parse' src/grammar_rules.py", turn=2),
        answered("src/grammar_rules.py:7: def parse(text)", turn=2),
        printed("warning: 3 tests are slow", turn=2),
        logged("- [x] the lexer is done", turn=2),
        warning(1),
    )
    await until_still(projecting)
    expected = {
        "parser": ("message", 2),
        "rg": ("command", 3),
        '"def parse text"': ("output", 4),
        "tests slow": ("output", 5),
        "LEXER": ("log", 6),
    }
    for query, (kind, seq) in expected.items():
        (hit,) = (await archive.search(query)).hits
        assert (hit.kind, hit.seq, hit.run_id, hit.turn) == (kind, seq, run.run_id, 2)
        assert [hit.snippet[start:end].lower() for start, end in hit.marks] == words(query)
    assert len((await archive.search("grammar_rules.py")).hits) == 2


async def test_all_words_must_occur_and_phrases_in_order(archive: Archive) -> None:
    await put(archive, "alpha beta gamma", "gamma beta alpha", "alpha only")
    assert await found(archive, "alpha gamma") == ["gamma beta alpha", "alpha beta gamma"]
    assert await found(archive, '"alpha beta"') == ["alpha beta gamma"]
    assert await found(archive, '"beta alpha" gamma') == ["gamma beta alpha"]
    assert await found(archive, "alpha delta") == []
    assert await found(archive, "alph") == []


async def test_a_path_is_found_by_any_of_its_parts(archive: Archive) -> None:
    await put(archive, "see src/foo_bar/baz-qux.test.ts:12")
    for query in ("foo_bar", "foo", "baz-qux.test.ts", "src/foo_bar/baz-qux", "test.ts:12", "BAZ"):
        assert len(await found(archive, query)) == 1, query
    assert await found(archive, "bar/foo") == []


async def test_letters_of_all_kinds_are_found(archive: Archive) -> None:
    await put(archive, "Größe übergeben", "cafe\u0301 ouvert", "日本語 テスト", "ÅNGSTRÖM")
    for query in ("größe", "ÜBERGEBEN", "café", "日本語", "ångström"):
        assert len(await found(archive, query)) == 1, query
    assert await found(archive, "grosse") == []


async def test_nothing_that_is_typed_is_an_error(archive: Archive) -> None:
    await put(archive, "alpha beta")
    for query in ATTACKS:
        page = await archive.search(query)
        assert page.next_cursor is None, ascii(query[:20])
    assert (await archive.search("alpha")).hits


async def test_operators_are_words(archive: Archive) -> None:
    await put(archive, "alpha beta", "alpha or not and near")
    assert await found(archive, "alpha OR beta") == []
    assert await found(archive, "alpha NOT near") == ["alpha or not and near"]
    assert await found(archive, "alpha*") == ["alpha or not and near", "alpha beta"]


async def test_any_text_can_be_indexed(archive: Archive) -> None:
    for number, text in enumerate(ATTACKS):
        await put(archive, f"needle{number} {text}")
    for number, text in enumerate(ATTACKS):
        assert len((await archive.search(f"needle{number}")).hits) == 1, ascii(text[:20])


async def test_a_very_long_text_is_found_by_its_beginning(archive: Archive) -> None:
    await put(archive, "start " + "filler " * 100_000 + " end", "word" * 50_000, "same " * 20_000 + "last")
    assert len(await found(archive, "start filler")) == 1
    assert await found(archive, "end") == []
    assert len(await found(archive, "same")) == 1


async def test_pages_are_newest_first_and_complete(archive: Archive) -> None:
    await put(archive, *(f"needle {number}" for number in range(23)))
    seen: list[str] = []
    cursor = None
    while True:
        page = await archive.search("needle", limit=5, cursor=cursor)
        seen += [hit.snippet for hit in page.hits]
        cursor = page.next_cursor
        if cursor is None:
            break
        # What comes meanwhile belongs to no later page.
        await put(archive, "needle of later", run_id=cursor)
    assert seen == [f"needle {number}" for number in reversed(range(23))]


async def test_a_search_in_one_run(archive: Archive) -> None:
    await put(archive, "needle here", run_id="a")
    await put(archive, "needle there", run_id="b")
    hits = (await archive.search("needle", run_id="a")).hits
    assert [hit.run_id for hit in hits] == ["a"]


@pytest.mark.parametrize("cursor", ["x", "", "-1", "٣", "1" * 20, "9" * 19, "1;"])
async def test_a_cursor_that_no_search_gave_is_refused(archive: Archive, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await archive.search("needle", cursor=cursor)


async def test_a_halted_run_does_not_lose_its_texts(archive: Archive) -> None:
    await put(archive, "needle")
    before = await archive.cursor("r")
    assert await archive.record("r", before, RunBatch(run=None, known_seq=0, halted_reason="why"))
    assert await archive.cursor("r") != Cursor()
    assert await found(archive, "needle") == ["needle"]


def test_a_snippet_shows_the_first_word_that_was_asked_for() -> None:
    text = "x" * 500 + " needle in " + "y" * 500 + " needle"
    piece, marks = snippet(text, ["NEEDLE"])
    assert len(piece) == SNIPPET_CHARS
    assert marks == [(LEAD_CHARS, LEAD_CHARS + 6)]
    assert snippet("short", ["absent"]) == ("short", [])


def test_an_unclosed_quote_is_a_phrase_up_to_the_end() -> None:
    assert phrases('a "b c') == ["a", "b c"]
    assert phrases('a"b c"d "" " "') == ["a", "b c", "d"]


@settings(deadline=None)
@given(st.text(max_size=300))
def test_whatever_is_typed_becomes_strings_and_words(query: str) -> None:
    asked = phrases(query)
    # Outside of strings there is nothing but blanks; inside, quotes come in pairs and there is no NUL.
    assert fts5_query(asked).replace('""', "").count('"') == 2 * len(asked)
    assert "\0" not in fts5_query(asked)
    assert all(word.isalnum() or not word.isascii() for word in words(query))
    assert tsquery(asked).count("'") == 2 * sum(len(words(phrase)) for phrase in asked)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_the_words_of_a_text_are_those_of_its_vector(text: str) -> None:
    vector = tsvector(searchable(text))
    assert vector.count("'") == 2 * len(set(words(searchable(text))))
