"""The epic folder: where it is found, what is refused, and that nothing in it can hang or flood a reader."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cody.contracts.run_config import RunConfig
from cody.errors import InvalidRequest
from harness import epic as epic_module
from harness.epic import Epic, locate, read
from harness.regular_file import NotRegular, opened, text_of_head, text_of_tail


def config_for(working_dir: Path, harness_dir: str = ".cody-harness") -> RunConfig:
    return RunConfig(working_dir=str(working_dir), harness_dir=harness_dir)


def make_epic(tmp_path: Path, name: str = "current-epic") -> Epic:
    (tmp_path / ".cody-harness" / name).mkdir(parents=True)
    return locate(config_for(tmp_path), name)


def test_the_folder_named_by_epic_id_is_the_epic(tmp_path: Path) -> None:
    make_epic(tmp_path)
    epic = make_epic(tmp_path, "payments")
    harness = tmp_path / ".cody-harness"
    assert epic.working_dir == tmp_path
    assert epic.harness_dir == harness
    assert epic.epic_dir == harness / "payments"
    assert epic.codys_log == harness / "payments/codys-log.md"
    assert epic.prompt_md == harness / "payments/prompt.md"
    assert epic.decision_log == harness / "decision-log.md"
    assert epic.questions == harness / "user-feedback-questions.md"
    assert epic.stop_file == harness / "payments/.stop"


def test_an_epic_id_without_a_folder_means_current_epic(tmp_path: Path) -> None:
    make_epic(tmp_path)
    (tmp_path / ".cody-harness/PROJ-1").write_text("a file is no epic")
    for epic_id in ("PROJ-1", "PROJ-2", "x" * 128, "\N{SNOWMAN}" * 128):
        assert locate(config_for(tmp_path), epic_id).epic_dir == tmp_path / ".cody-harness/current-epic"


def test_without_any_epic_the_error_names_epic_and_folder_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        locate(config_for(tmp_path), "payments")
    assert caught.value.details == {"field": "epicId"}
    assert "'payments'" in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert "cody init" in caught.value.message


@pytest.mark.parametrize("path", ["relative/path", "/does/not/exist", "~", "/etc/hostname", "/" + "x" * 300])
def test_a_working_dir_that_is_no_absolute_folder_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        locate(RunConfig(working_dir=path), "e")
    assert caught.value.details == {"field": "config.workingDir"}


@pytest.mark.parametrize("harness_dir", ["/abs", "..", "../other", "a/../..", ".", "a/.."])
def test_a_harness_dir_that_is_not_inside_is_refused(tmp_path: Path, harness_dir: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        locate(config_for(tmp_path, harness_dir), "e")
    assert caught.value.details == {"field": "config.harnessDir"}


def test_a_harness_dir_that_is_a_link_out_of_the_workspace_is_refused(tmp_path: Path) -> None:
    workspace, outside = tmp_path / "workspace", tmp_path / "outside"
    workspace.mkdir()
    (outside / "current-epic").mkdir(parents=True)
    (workspace / ".cody-harness").symlink_to(outside)
    with pytest.raises(InvalidRequest, match="not a folder inside"):
        locate(config_for(workspace), "current-epic")


def test_an_epic_that_is_a_link_out_of_the_harness_is_refused_and_not_replaced_by_current_epic(tmp_path: Path) -> None:
    make_epic(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / ".cody-harness/evil").symlink_to(tmp_path / "outside")
    (tmp_path / ".cody-harness/self").symlink_to(tmp_path / ".cody-harness")
    for epic_id in ("evil", "self"):
        with pytest.raises(InvalidRequest, match="leads out"):
            locate(config_for(tmp_path), epic_id)


def test_an_epic_that_is_a_link_inside_the_harness_is_taken_for_what_it_points_to(tmp_path: Path) -> None:
    target = make_epic(tmp_path, "2026-payments")
    (tmp_path / ".cody-harness/latest").symlink_to("2026-payments")
    assert locate(config_for(tmp_path), "latest") == target


@pytest.mark.parametrize("epic_id", ["", ".", "..", "a/b", "../current-epic"])
def test_an_epic_id_that_is_no_single_segment_is_refused(tmp_path: Path, epic_id: str) -> None:
    make_epic(tmp_path)
    with pytest.raises(InvalidRequest, match="path segment"):
        locate(config_for(tmp_path), epic_id)


def test_a_working_dir_reached_through_a_link_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    expected = make_epic(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert locate(config_for(tmp_path / "link"), "current-epic") == expected


def test_all_texts_are_read_and_guides_come_by_name(tmp_path: Path) -> None:
    epic = make_epic(tmp_path)
    epic.codys_log.write_text("log\n")
    epic.decision_log.write_text("decisions\n")
    epic.questions.write_text("questions\n")
    epic.prompt_md.write_text("mission\n")
    for name in ("b.md", "a.md", ".last-prompt.md", "notes.txt", "c.md.bak"):
        (epic.epic_dir / name).write_text(name)
    text = read(epic)
    assert text.mission is not None
    assert (text.mission.name, text.mission.text) == (".cody-harness/current-epic/prompt.md", "mission\n")
    assert (text.codys_log.text, text.codys_log.note) == ("log\n", None)
    assert text.decision_log.text == "decisions\n"
    assert text.questions.text == "questions\n"
    assert [guide.name.rpartition("/")[2] for guide in text.guides] == ["a.md", "b.md"]
    assert text.guides_note is None


def test_missing_files_are_empty_and_say_so(tmp_path: Path) -> None:
    text = read(make_epic(tmp_path))
    assert text.mission is None
    assert text.guides == ()
    for file in (text.codys_log, text.decision_log, text.questions):
        assert (file.text, file.note) == ("", "does not exist yet")


def test_an_epic_folder_that_was_removed_reads_as_empty(tmp_path: Path) -> None:
    epic = make_epic(tmp_path)
    epic.epic_dir.rmdir()
    assert read(epic).codys_log.note == "does not exist yet"


def test_of_a_huge_log_the_end_is_read_from_a_line_start_on(tmp_path: Path) -> None:
    epic = make_epic(tmp_path)
    with epic.codys_log.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.writelines(b"line %06d\n" % number for number in range(10_000))
    size = epic.codys_log.stat().st_size
    log = read(epic).codys_log
    assert len(log.text.encode()) <= 64 * 1024
    assert log.text.startswith("line 00")
    assert log.text.endswith("line 009999\n")
    assert log.note is not None
    assert f"{size - 64 * 1024:,} of {size:,} bytes" in log.note
    assert str(epic.codys_log) in log.note


def test_of_a_long_guide_the_start_is_read_to_a_line_end(tmp_path: Path) -> None:
    epic = make_epic(tmp_path)
    (epic.epic_dir / "long.md").write_text("".join(f"line {number:06}\n" for number in range(10_000)))
    (guide,) = read(epic).guides
    assert guide.text.startswith("line 000000\n")
    assert guide.text.endswith("\n")
    assert 60_000 < len(guide.text) <= 64 * 1024
    assert guide.note is not None
    assert "the last" in guide.note


def test_guides_are_bounded_in_total_and_in_number(tmp_path: Path) -> None:
    epic = make_epic(tmp_path)
    for number in range(20):
        (epic.epic_dir / f"{number:02}.md").write_text("x" * 60_000)
    text = read(epic)
    assert sum(len(guide.text) for guide in text.guides) <= 512 * 1024
    assert [guide.name[-5:] for guide in text.guides] == [f"{number:02}.md" for number in range(9)]
    assert text.guides_note is not None
    assert text.guides_note.startswith("11 more guides")


def test_of_many_guides_the_first_by_name_are_taken(tmp_path: Path) -> None:
    epic = make_epic(tmp_path)
    many = 3 * epic_module.MAX_GUIDES
    for number in range(many):
        (epic.epic_dir / f"{number:05}.md").touch()
    text = read(epic)
    assert [guide.name[-8:] for guide in text.guides] == [f"{n:05}.md" for n in range(epic_module.MAX_GUIDES)]
    assert text.guides_note is not None
    assert text.guides_note.startswith(f"{many - epic_module.MAX_GUIDES} more guides")


def test_invalid_utf8_is_replaced(tmp_path: Path) -> None:
    epic = make_epic(tmp_path)
    epic.codys_log.write_bytes(b"caf\xe9 \xff\xfe ok\n")
    assert read(epic).codys_log.text == "caf\ufffd \ufffd\ufffd ok\n"


def test_links_fifos_folders_and_sockets_are_refused_without_hanging(tmp_path: Path) -> None:
    epic = make_epic(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("TOP SECRET")
    epic.codys_log.symlink_to(secret)
    os.mkfifo(epic.decision_log)
    epic.questions.mkdir()
    (epic.epic_dir / "link.md").symlink_to(secret)
    os.mkfifo(epic.epic_dir / "pipe.md")
    with socket.socket(socket.AF_UNIX) as listener:
        # A socket's own path is bounded to 108 bytes, a relative one is short.
        here = Path.cwd()
        os.chdir(epic.epic_dir)
        try:
            listener.bind("prompt.md")
        finally:
            os.chdir(here)
        text = read(epic)
    assert text.codys_log.note == "is a symbolic link, not a regular file"
    assert text.decision_log.note == "is a FIFO, not a regular file"
    assert text.questions.note == "is a folder, not a regular file"
    assert text.mission is not None
    assert text.mission.note == "is a socket, not a regular file"
    assert [guide.note for guide in text.guides] == [
        "is a symbolic link, not a regular file",
        "is a FIFO, not a regular file",
    ]
    assert "SECRET" not in repr(text)


def test_an_epic_folder_replaced_by_a_link_is_not_read(tmp_path: Path) -> None:
    epic = make_epic(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("TOP SECRET")
    epic.epic_dir.rmdir()
    epic.epic_dir.symlink_to(outside)
    with pytest.raises(InvalidRequest, match="replaced by a link"):
        read(epic)


def test_a_file_that_is_cut_while_it_is_read_gives_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"0123456789")
    with opened(path) as file:
        os.truncate(path, 4)
        assert file.read(2, 8) == b"23"
        with path.open("ab") as more:
            more.write(b"x" * 100)
        assert len(file.read(0, 1000)) == 10, "nothing behind the size at opening"


def test_opening_says_what_stands_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), opened(tmp_path / "missing"):
        pass
    with pytest.raises(NotRegular, match="a device"), opened(Path("/dev/null")):
        pass


@pytest.mark.parametrize(
    ("data", "cut", "text"),
    [
        (b"rest of a line\nwhole\n", True, "whole\n"),
        (b"rest of a line\nwhole\n", False, "rest of a line\nwhole\n"),
        (b"no newline at all", True, "no newline at all"),
        ("é€".encode()[1:], True, "€"),
        ("long line é\n".encode()[2:], True, "ng line é\n"),
        ("half €".encode()[:-1], False, "half "),
        (b"\x80" * 6, True, "\ufffd" * 6),
        (b"", True, ""),
    ],
)
def test_a_tail_is_cut_between_lines_and_characters(data: bytes, cut: bool, text: str) -> None:
    assert text_of_tail(data, cut=cut) == text


@pytest.mark.parametrize(
    ("data", "cut", "text"),
    [
        (b"whole\npart", True, "whole\n"),
        (b"whole\npart", False, "whole\npart"),
        ("one long €".encode()[:-1], True, "one long "),
    ],
)
def test_a_head_is_cut_between_lines_and_characters(data: bytes, cut: bool, text: str) -> None:
    assert text_of_head(data, cut=cut) == text
