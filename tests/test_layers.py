"""Imports point one way: a defense never knows an attack, an attack never knows Lightning, one file knows wandb."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What each package may import of this project.
ALLOWED = {
    "models": set(),
    "defenses": set(),
    "datamodules": set(),
    "attacks": {"models", "defenses"},
    "evaluation": {"models", "defenses", "attacks"},
    "lightning_modules": {"models", "defenses", "attacks"},
    "callbacks": {"models", "defenses", "attacks", "evaluation", "lightning_modules", "datamodules"},
    "analysis": {"models", "defenses", "attacks", "evaluation", "lightning_modules", "datamodules", "callbacks"},
    "papers": {"models", "defenses", "attacks", "evaluation", "analysis"},
}
WITHOUT_LIGHTNING = ("models", "defenses", "attacks", "evaluation")


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def files_of(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no files"
    return files


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_downwards_only(package: str) -> None:
    ours = {*ALLOWED, "cli", "train", "evaluate", "analyze"}
    for file in files_of(package):
        above = (imports_of(file) & ours) - ALLOWED[package] - {package}
        assert not above, f"{file.relative_to(ROOT)} imports {above}"


@pytest.mark.parametrize("package", WITHOUT_LIGHTNING)
def test_the_inner_packages_do_not_know_lightning(package: str) -> None:
    for file in files_of(package):
        assert not imports_of(file) & {"pytorch_lightning", "lightning", "torchmetrics", "wandb"}, file


def test_wandb_is_imported_in_one_file() -> None:
    packages = [*ALLOWED, "cli"]
    importers = [file.name for package in packages for file in files_of(package) if "wandb" in imports_of(file)]
    assert importers == ["wandb_run.py"]


def test_a_defense_never_looks_at_the_mode() -> None:
    for file in files_of("defenses"):
        attributes = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
        # RunningScaledNoise measures in training what it adds in either mode; test_learned_noise.py holds it to that.
        assert "training" not in attributes or file.name == "learned_noise.py", file
