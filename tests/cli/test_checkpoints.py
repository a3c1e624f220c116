"""The published networks of the papers, which no check has a reason to doubt.

`FRESHDRAW_CHECKPOINTS` names the folder of `cifar10_adv.safetensors` and `cifar10_plain.safetensors`, `FRESHDRAW_DATA`
that of CIFAR-10 (`--data.root`).
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome

PLACES = {name: os.environ.get(name, "") for name in ("FRESHDRAW_CHECKPOINTS", "FRESHDRAW_DATA")}
CHECKPOINTS, DATA = (Path(place).resolve() for place in PLACES.values())  # tests run in folders of their own
MISSING = [name for name, place in PLACES.items() if not place]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(MISSING), reason=f"needs published weights and CIFAR-10: {' and '.join(MISSING)} not set"),
]


@pytest.mark.parametrize("recipe", ["adv", "plain"])
def test_no_check_doubts_an_honest_network(recipe: str, evaluate: Callable[..., Outcome]) -> None:
    weights = CHECKPOINTS / f"cifar10_{recipe}.safetensors"
    words = f"--model {recipe} --suite quick --n 64 --checks quick --trainer.accelerator cpu --out here"
    outcome = evaluate("--weights", weights, "--data.root", DATA, *words.split())
    assert outcome.code == 0, outcome.err
    checks = json.loads(Path("here/results.json").read_text())["checks"]
    assert {check["name"] for check in checks if check["verdict"] == "doubt"} == set(), outcome.out
    # An undefended network has no surviving image for most of the other questions.
    passed = {check["name"] for check in checks if check["verdict"] == "pass"}
    assert {"labels and pixels", "logits", "clean accuracy"} <= passed, outcome.out
