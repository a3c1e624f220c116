"""What is wrong with a model or its inputs is found by asking the model, before or without an attack."""

from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from attacks import L2
from defenses import Stream, drawing_from
from defenses.randomness import normal_like
from tests.evaluation.checks_toys import FEW, PGD24, evaluated, names, plain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "evaluation"


class Probabilities(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return plain()(x).softmax(1)


class Normalised(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return plain()((x + 1) / 2)


def test_probabilities_and_wrong_inputs_are_doubted_before_anything_is_attacked(folder: Path) -> None:
    run = evaluated(plain(), {"pgd24": PGD24}, folder, n=FEW)
    (x, y), good = run.batches[0], run.model
    run.model = Probabilities()
    assert names(run.checks(), "doubt") == {"logits"}
    run.model = good
    cases = {
        "0 to 255": (255 * x, y),
        "normalised": (2 * x - 1, y),
        "divided by 255 twice": (x / 255, y),
        "no class": (x, y + 1),
        "exceed 1": (1.5 * x, y),
    }
    for what, batch in cases.items():
        run.batches = [batch]
        checks = run.checks()
        assert names(checks, "doubt") == {"labels and pixels"}
        assert what in checks["labels and pixels"].text
    assert not (folder / "checks").exists()


def test_shuffled_labels_are_doubted(folder: Path) -> None:
    run = evaluated(plain(), {"pgd24": PGD24}, folder)
    wrong = {name: replace(rows, label=(rows.label + 1) % 10) for name, rows in run.rows.items()}
    run.rows, run.batches = wrong, [(x, (y + 1) % 10) for x, y in run.batches]
    assert "clean accuracy" in names(run.checks(), "doubt")


class Repeating(nn.Module):
    """Noise that is said to be random and is the same in every pass."""

    random, shared = True, False

    def forward(self, x: Tensor) -> Tensor:
        with drawing_from(Stream(3)):
            return plain()(x + normal_like(x, 0.05))


def test_noise_that_repeats_itself_is_doubted(folder: Path) -> None:
    checks = evaluated(Repeating(), {"pgd24": PGD24}, folder, n=FEW).checks()
    assert "gradients over draws" in names(checks, "doubt")


class Interrupted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return plain()(x.detach())


class NaNGradient(nn.Module):
    """Finite answers; the square root of 0 has no derivative."""

    def forward(self, x: Tensor) -> Tensor:
        return plain()(x) + (0 * x).sqrt().sum((1, 2, 3)).unsqueeze(1)


def test_a_graph_without_gradients_is_doubted(folder: Path) -> None:
    assert "gradients" in names(evaluated(Interrupted(), {"pgd24": PGD24}, folder, n=FEW).checks(), "doubt")


def test_nan_gradients_are_doubted_and_what_cannot_be_run_is_left_out(folder: Path) -> None:
    run = evaluated(plain(), {"pgd24": replace(PGD24, ball=L2(0.5))}, folder, n=FEW)
    run.model = NaNGradient()
    checks = run.checks()
    assert "gradients" in names(checks, "doubt")
    assert {"single step", "more steps", "unbounded"} <= names(checks, "not run")
