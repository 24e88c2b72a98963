"""`cody init`: makes what is missing, keeps what is there, writes nowhere else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cody.contracts.run_config import CompletionConfig, RunConfig
from cody.errors import InvalidRequest
from harness.completion import EMPTY_LOG, LogWatch
from harness.epic import locate, read
from harness.prompt import assemble, neutralise
from harness.scaffold import scaffold

FILES = (
    ".cody-harness/decision-log.md",
    ".cody-harness/user-feedback-questions.md",
    ".cody-harness/current-epic/codys-log.md",
    ".cody-harness/current-epic/prompt.md",
    ".cody-harness/current-epic/01-reference.md",
    ".cody-harness/prior-epics/.gitkeep",
)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_everything_is_made_in_an_empty_folder(tmp_path: Path) -> None:
    report = scaffold(tmp_path)
    assert (report.created, report.kept) == (FILES, ())
    assert files_in(tmp_path) == set(FILES)


def test_what_is_made_is_an_epic_that_can_be_worked_in(tmp_path: Path) -> None:
    scaffold(tmp_path)
    epic = locate(RunConfig(working_dir=str(tmp_path)), "current-epic")
    text = read(epic)
    files = [text.mission, text.codys_log, text.decision_log, text.questions, *text.guides]
    assert len(files) == 5
    for file in files:
        assert file is not None
        assert file.note is None
        assert 100 < len(file.text) < 2000
        assert neutralise(file.text) == file.text
    assert "Carry the work of this epic forward" in assemble(text, epic=epic, turn=1, max_turns=None, run_id=None)


def test_a_fresh_log_matches_no_likely_completion_pattern(tmp_path: Path) -> None:
    scaffold(tmp_path)
    log = tmp_path / ".cody-harness/current-epic/codys-log.md"
    for pattern in ("(?i)complete", "(?i)all done", "DONE", "(?i)finished"):
        assert LogWatch(log, CompletionConfig(pattern=pattern), EMPTY_LOG).check() is None


def test_what_exists_is_kept_and_the_rest_is_made(tmp_path: Path) -> None:
    own = tmp_path / ".cody-harness/current-epic/prompt.md"
    own.parent.mkdir(parents=True)
    own.write_text("my mission")
    link = tmp_path / ".cody-harness/decision-log.md"
    link.symlink_to(tmp_path / "dangling")
    report = scaffold(tmp_path)
    assert report.kept == (FILES[0], FILES[3])
    assert set(report.created) == set(FILES) - set(report.kept)
    assert own.read_text() == "my mission"
    assert not (tmp_path / "dangling").exists(), "a broken link is not written through"
    again = scaffold(tmp_path)
    assert (again.created, again.kept) == ((), FILES)


def test_another_name_for_the_harness_folder(tmp_path: Path) -> None:
    report = scaffold(tmp_path, harness_dir="tools/agent")
    assert "tools/agent/current-epic/prompt.md" in report.created
    assert not (tmp_path / ".cody-harness").exists()


@pytest.mark.parametrize("harness_dir", ["..", "../x", "/tmp/x", "."])
def test_a_harness_folder_outside_is_refused(tmp_path: Path, harness_dir: str) -> None:
    with pytest.raises(InvalidRequest):
        scaffold(tmp_path, harness_dir=harness_dir)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [".cody-harness", ".cody-harness/current-epic"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, place: str) -> None:
    workspace, outside = tmp_path / "w", tmp_path / "outside"
    (workspace / place).parent.mkdir(parents=True)
    outside.mkdir()
    (workspace / place).symlink_to(outside)
    with pytest.raises(InvalidRequest):
        scaffold(workspace)
    assert list(outside.iterdir()) == []


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / ".cody-harness").write_text("a file")
    with pytest.raises(InvalidRequest, match=re.escape(str(tmp_path / ".cody-harness"))):
        scaffold(tmp_path)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.scaffold", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_command_says_what_it_made_what_it_kept_and_what_comes_next(tmp_path: Path) -> None:
    first = command(str(tmp_path))
    assert first.returncode == 0
    assert [line for line in first.stdout.splitlines() if line.startswith("created")] == [
        f"created  {f}" for f in FILES
    ]
    assert "Next: say what is to be done in .cody-harness/current-epic/prompt.md" in first.stdout
    (tmp_path / FILES[0]).unlink()
    second = command(str(tmp_path), "--json")
    assert json.loads(second.stdout) == {
        "path": str(tmp_path),
        "harnessDir": ".cody-harness",
        "created": [FILES[0]],
        "kept": list(FILES[1:]),
    }


def test_the_command_without_a_path_means_the_current_folder(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "harness.scaffold"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
    )
    assert files_in(tmp_path) == set(FILES)


def test_errors_are_one_plain_sentence_and_exit_code_2(tmp_path: Path) -> None:
    answer = command(str(tmp_path / "missing"))
    assert answer.returncode == 2
    assert str(tmp_path / "missing") in answer.stderr
    assert "Traceback" not in answer.stderr
