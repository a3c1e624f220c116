"""The transfer matrix against single attacks and judgements by hand, its intervals against those of summaries."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attacks import PGD, Linf
from defenses import GaussianNoise, RobustNet, Stream, drawing_from
from evaluation import Cost, Records, Setting, bootstrap, counting, examine, judge, rows_of, wilson
from evaluation.transfer import Matrix, adversary, cell, cells, matrices
from models import ResNet20
from tests.evaluation.made import batches_of, drawn, made_right

ATTACK = PGD(Linf(0.2), 0.05, 3)
DRAWS = {"plain": 1, "noisy": 4}


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6)


@pytest.fixture
def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"plain": ResNet20(), "noisy": RobustNet(ResNet20(), init=GaussianNoise(0.5), inner=GaussianNoise(0.5))}


def matrix(models: dict[str, nn.Module], folder: Path) -> Matrix:
    records = Records(folder, {"adversaries": cells(list(models), ["pgd"])})
    return Matrix(models, {"pgd": ATTACK}, records, seed=7, draws=DRAWS)


def examined(found: Matrix, images: tuple[torch.Tensor, torch.Tensor]) -> int:
    """How many adversaries were missing."""
    missing = found.missing(0)
    for name in missing:
        found.examine(name, 0, 0, images)
    return len(missing)


def test_cells_are_one_networks_attack_judged_on_another(models, images, tmp_path):
    assert examined(matrix(models, tmp_path), images) == 3
    rows = rows_of(matrix(models, tmp_path).records.table())
    assert len(rows) == 2 + 2 * 2
    accuracy = matrices(rows, ["pgd"], {"plain": Setting(False), "noisy": Setting(True)})["pgd"]["accuracy"]
    x, y = images
    for i, (source, model) in enumerate(models.items()):
        with drawing_from(Stream.named(7, "pgd", "attack", index=0)):
            x_adv = ATTACK(model, x, y)
        for j, (target, judged) in enumerate(models.items()):
            found = rows[cell(adversary(source, "pgd"), target)]
            with drawing_from(Stream.named(7, adversary(source, "pgd"), "judge", index=0)):
                verdict = judge(judged, x_adv, DRAWS[target])
            np.testing.assert_array_equal(found.answers, verdict.answers)
            np.testing.assert_allclose(found.linf, 0.2, atol=1e-3)
            assert accuracy[i][j] == (verdict.answers == y[:, None]).double().mean().item()
    assert rows[cell("clean", "noisy")].linf.max() == 0


def test_the_diagonal_of_a_network_without_noise_is_its_ordinary_evaluation(models, images, tmp_path):
    found = matrix(models, tmp_path)
    examined(found, images)
    rows = rows_of(found.records.table())[cell(adversary("plain", "pgd"), "plain")]
    alone = examine(models["plain"], images, 0, "pgd", ATTACK, seed=7, draws=1).rows
    np.testing.assert_array_equal(rows.answers, alone.answers)
    np.testing.assert_allclose(rows.l2, alone.l2, rtol=1e-6)


def test_what_was_written_is_not_made_again(models, images, tmp_path):
    examined(matrix(models, tmp_path), images)
    before = matrix(models, tmp_path).records.table()
    (tmp_path / "parts" / cell(adversary("plain", "pgd"), "noisy") / "000000.parquet").unlink()
    again = matrix(models, tmp_path)
    assert again.missing(0) == [adversary("plain", "pgd")]
    with counting(models["plain"]) as plain, counting(models["noisy"]) as noisy:
        assert examined(again, images) == 1
        assert examined(again, images) == 0
    # The lost attack was made once more, and shown to the network whose answer was lost, and to no other.
    assert (plain.gradient, noisy.forward, noisy.gradient) == (6 * 3, 6 * 4, 0)
    assert again.records.table().equals(before)


def test_cost_is_what_was_counted_and_close_to_what_was_expected(models, images, tmp_path):
    found = matrix(models, tmp_path)
    expected = found.expected(images[0], 10)
    assert list(expected) == ["clean", *(adversary(source, "pgd") for source in models)]
    with counting(models["plain"]) as plain, counting(models["noisy"]) as noisy:
        examined(found, images)
    cost = found.records.cost()
    assert (cost.forward, cost.gradient) == (plain.forward + noisy.forward, plain.gradient + noisy.gradient)
    whole = sum(expected.values(), Cost())
    # An image costs 3 gradients on each network; 1 and 4 judge draws, clean and on two attacks.
    assert (whole.forward, whole.gradient) == (2 * 3 + 3 * (1 + 4), 2 * 3)
    assert (cost.forward, cost.gradient) == (6 * whole.forward, 6 * whole.gradient)
    assert all(one.seconds > 0 for one in expected.values())


def test_intervals_are_those_of_the_summaries():
    rng, names = np.random.default_rng(0), ["fixed", "noisy", "shared"]
    batch = batches_of(40, 4)
    right = {
        name: {
            "fixed": rng.uniform(size=(40, 1)) < 0.3,
            "noisy": drawn(rng, 40, 8, 4, shared=False),
            "shared": drawn(rng, 40, 8, 4, shared=True),
        }
        for name in ("clean", *(adversary(source, "pgd") for source in names))
    }
    rows = {
        cell(name, target): made_right(values, cell(name, target), batch=batch)
        for name, found in right.items()
        for target, values in found.items()
    }
    targets = {"fixed": Setting(False), "noisy": Setting(True, seed=3), "shared": Setting(True, True, seed=3)}
    found = matrices(rows, ["pgd"], targets)["pgd"]
    for i, source in enumerate(names):
        values = right[adversary(source, "pgd")]
        intervals = [
            wilson(int(values["fixed"].sum()), 40),
            bootstrap(values["noisy"], None, seed=3),
            bootstrap(values["shared"], batch, seed=3),
        ]
        np.testing.assert_allclose(found["low"][i], [one.low for one in intervals])
        np.testing.assert_allclose(found["high"][i], [one.high for one in intervals])
        np.testing.assert_allclose(found["accuracy"][i], [values[target].mean() for target in names])
    assert (found["clean_low"][0], found["clean_high"][0]) == wilson(int(right["clean"]["fixed"].sum()), 40)
    assert (found["draws"], found["n"]) == ([1, 8, 8], 40)
