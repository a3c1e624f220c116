"""Which code and which machine computed a folder, line by line."""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation import Records
from evaluation.sessions import code_version, environment, note_session, processor

MANIFEST: dict[str, Any] = {"adversaries": ["clean"], "seed": 0}


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set where the tests run in a hook
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "code.py").write_text("1\n")
    git(root, "add", "code.py")
    git(root, "commit", "--quiet", "--message", "one")
    return root


def test_a_checkout_is_named_by_its_commit_and_by_whether_it_was_changed(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    git(checkout, "tag", "--annotate", "v1", "--message", "a tag does not stand in for the commit")
    assert code_version(checkout) == commit
    (checkout / "new.txt").write_text("not tracked")
    assert code_version(checkout) == commit
    (checkout / "code.py").write_text("2\n")
    assert code_version(checkout) == f"{commit}-dirty"


def test_a_package_inside_somebody_elses_checkout_is_not_of_its_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "site-packages").mkdir()
    monkeypatch.setattr("evaluation.sessions.version", {"freshdraw": "1.2.3"}.__getitem__)
    assert code_version(checkout / "site-packages") == "1.2.3"
    monkeypatch.setenv("PATH", "")  # no git
    assert code_version(checkout) == "1.2.3"


def test_each_session_adds_a_line_that_the_manifest_does_not_know(tmp_path: Path) -> None:
    records = Records(tmp_path, MANIFEST)
    for devices in (1, 8):
        note_session(records.folder, environment(torch.device("cpu"), devices))
        records = Records(tmp_path, MANIFEST)
    assert json.loads((tmp_path / "manifest.json").read_text()) == MANIFEST
    first, second = [json.loads(line) for line in (tmp_path / "sessions.jsonl").read_text().splitlines()]
    assert (first["devices"], second["devices"]) == (1, 8)
    assert (first["device"], first["device_name"]) == ("cpu", f"{torch.get_num_threads()} CPU threads")
    assert (first["torch"], first["numpy"]) == (version("torch"), version("numpy"))
    assert first["code"] == code_version()


def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Some  CPU\n\nprocessor\t: 1\nmodel name\t: Some  CPU\n")
    assert processor(told) == "Some CPU"
    told.write_text("processor\t: 0\nmodel name\t:\n")  # some virtual machines hide it
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert processor(told) == processor(tmp_path / "nowhere") == "riscv64"
    assert environment(torch.device("cpu"), 1)["processor"] == processor()
