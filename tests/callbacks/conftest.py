"""What Lightning warns of in a training as small as these, and where such a training leaves its files."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lightning takes the current folder for that of the run."""
    monkeypatch.chdir(tmp_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "callbacks" in item.path.parts:
            for message in (
                ".*does not have many workers:UserWarning",  # the images lie in memory
                "GPU available but not used:UserWarning",
                ".*LeafSpec.* is deprecated:FutureWarning",
            ):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))
