"""An installed copy has its data files and stays behind a user's own modules of the same names."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in tracked:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    # No isolation: setuptools is in the environment, and a test must not need a network.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, capture_output=True, check=True)
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_holds_configs_and_markers_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    recipes = {path.name for path in (ROOT / "configs/models").glob("*.yaml")}
    assert recipes == {Path(name).name for name in names if name.startswith("configs/models/")}
    assert "configs/defaults.yaml" in names
    assert "defenses/py.typed" in names
    assert not [name for name in names if name.startswith("tests")]


def test_a_users_own_modules_come_first(wheel: Path, tmp_path: Path) -> None:
    installed, users = tmp_path / "site", tmp_path / "project"
    zipfile.ZipFile(wheel).extractall(installed)
    (users / "tests").mkdir(parents=True)
    (users / "tests" / "__init__.py").write_text("OWNER = 'user'")
    (users / "models.py").write_text("OWNER = 'user'")
    (users / "main.py").write_text("import models, tests; print(models.OWNER, tests.OWNER)")
    # Even a copy on PYTHONPATH, which comes before site-packages, comes after the folder of the user's script.
    command = [sys.executable, "main.py"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=users, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["user", "user"]
