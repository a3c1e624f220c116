"""What Lightning warns of in a training as small as these."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "callbacks" in item.path.parts:
            for message in (
                ".*does not have many workers:UserWarning",  # the images lie in memory
                "GPU available but not used:UserWarning",
                ".*LeafSpec.* is deprecated:FutureWarning",
            ):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))
