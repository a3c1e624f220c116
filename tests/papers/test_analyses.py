"""What the figures of gradients, Hessians, windows, and channels conclude, from numbers made by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis.curvature import exact_curvature
from analysis.gradients import gradient_norms
from attacks import CarliniWagner
from defenses import Identity, Uniform
from papers import (
    Bench,
    ChannelDeltas,
    Curvature,
    GradientAnomaly,
    GradientNorms,
    GradientRecovery,
    Pictures,
    RecoveryWindow,
    Value,
)
from papers.gradient_anomaly import beyond
from papers.gradient_recovery import smaller
from papers.recovery_window import window

CLASSES, SIZE, N = 4, 6, 24


class Network(nn.Module):
    """A small network of ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 32), nn.ReLU(), nn.Linear(32, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return 8 * self.layers(x)


class Split:
    """Random images with the network's own answers, so that all of them are right."""

    def __init__(self) -> None:
        self.images = torch.rand(N, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        self.labels = Network()(self.images).argmax(1).detach()

    def __getitem__(self, places: list[int]) -> tuple[Tensor, Tensor]:
        return self.images[places], self.labels[places]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, lambda name: Network(), lambda data: Split(), say=lambda line: None)


HERE = {"title": "t", "network": "any", "data": "any", "n": N, "attacks": {"C&W": CarliniWagner(50, 3)}}


def cells(table) -> dict[tuple[str, str], Value]:  # type: ignore[no-untyped-def]
    return {(row[0], row[1]): row[2] for row in table.rows}


def test_a_window_is_counted_in_decades_between_levels_that_recover() -> None:
    levels = [0, 0.01, 0.1, 1, 10]
    original = np.array([
        [1, 1, 1, 1, 1],  # three decades; the step from 0 has no width
        [0, 0.4, 0.6, 0.9, 0.5],  # from 0.1 to 1
        [0, 0, 1, 0, 1],  # levels of their own
        [0, 0, 0, 0, 0],
    ])  # fmt: skip
    np.testing.assert_allclose(window(levels, original), [3, 1, 0, 0])
    assert window([0.5], original[:, :1]).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("a", "b", "outcome"),
    [(range(30), range(100, 140), "confirmed"), (range(100, 140), range(30), "refuted"),
     (range(0, 60, 2), range(1, 61, 2), "undecided"), (range(30), range(100, 105), "undecided")],
)  # fmt: skip
def test_groups_of_other_images_are_compared_by_the_chance_to_be_smaller(a: range, b: range, outcome: str) -> None:
    found = smaller("claim", {"q": (np.array(a, float), np.array(b, float))})
    assert found.outcome == outcome
    expected = np.mean([[(x < y) + 0.5 * (x == y) for x in a] for y in b])
    assert f"q: {100 * expected:.1f} %" in found.reason


def test_both_ways_to_the_hessian_tell_the_same(bench: Bench) -> None:
    exact = Curvature(**HERE, top=2).run(bench)
    products = Curvature(**HERE, top=2, method="lanczos", products=30).run(bench)
    ours, theirs = cells(exact.tables[0]), cells(products.tables[0])
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert theirs[key].value == pytest.approx(value.value, rel=1e-2, abs=1e-3)
    ratio = {(row[0], row[1]): row[2] for row in exact.tables[1].rows}
    median = ours["C&W", "median"].value / ours["original", "median"].value
    assert ratio["C&W", "median"].value == pytest.approx(median, rel=1e-6)
    split, model = Split(), Network()
    x_adv = HERE["attacks"]["C&W"](model, split.images, split.labels)  # type: ignore[index]
    larger = exact_curvature(model, x_adv).values > exact_curvature(model, split.images).values
    share = ratio["C&W", "images where it is larger (%)"].value
    assert share == pytest.approx(100 * float(larger.double().mean()))


@pytest.mark.parametrize(
    ("share", "outcome"),
    [(Value(99, 97, 100), "confirmed"), (Value(99, 90, 100), "undecided"), (Value(60, 40, 80), "refuted")],
)
def test_nearly_always_needs_an_interval_beyond_the_limit(share: Value, outcome: str) -> None:
    assert beyond("claim", share).outcome == outcome


def test_the_anomaly_is_that_of_the_analysis(bench: Bench) -> None:
    found = GradientAnomaly(**HERE, printed={"original": {"lowest is predicted (%)": 99}}).run(bench)
    norms = gradient_norms(Network(), Split().images)
    lowest = 100 * float((norms.norms[0].argmin(1) == norms.predicted[0]).double().mean())
    row = found.tables[0].rows[0]
    assert row[:2] == ["original", "lowest is predicted (%)"]
    assert row[2].value == pytest.approx(lowest)
    assert row[3] == 99
    assert sum(row[1] for row in found.tables[1].rows) == N


def test_without_noise_the_norms_are_those_of_the_attacked_image(bench: Bench) -> None:
    found = GradientNorms(
        **HERE, levels=[0, 0.01, 5.0], roles=3, clean=True,
        rules=["original_rises", "cross", "converge", "above_random"],
    ).run(bench)  # fmt: skip
    split, model = Split(), Network()
    x_adv = HERE["attacks"]["C&W"](model, split.images, split.labels)  # type: ignore[index]
    answer = model(x_adv).argmax(1)
    assert (answer != split.labels).all()
    norms = gradient_norms(model, x_adv, torch.stack([split.labels, answer], 1)).norms[0].mean(0)
    ours = cells(found.tables[0])
    assert ours["C&W, 0", "original class, mean"].value == pytest.approx(float(norms[0]), rel=1e-4)
    assert ours["C&W, 0", "adversarial class, mean"].value == pytest.approx(float(norms[1]), rel=1e-4)
    assert ours["C&W, 0", "recovered (%)"].value == 0
    assert ours["original, 0", "recovered (%)"].value == 100
    assert len(found.verdicts) == 4


def test_recovered_and_other_images_add_up(bench: Bench) -> None:
    found = GradientRecovery(**HERE, channel=Uniform(0.1), draws=5).run(bench)
    counts = [row[2].value for row in found.tables[0].rows if row[1] == "images"]
    assert sum(counts) == N
    assert GradientRecovery(**HERE, channel=Identity()).run(bench).tables[0].rows[0][0] == "C&W, not recovered"


def test_a_window_closes_where_noise_drowns_the_image(bench: Bench) -> None:
    found = RecoveryWindow(**HERE, levels=[0, 0.05, 0.5, 500.0], passes=8, bounds_range=1.0).run(bench)
    numbers = cells(found.tables[0])
    split = Split()
    x_adv = HERE["attacks"]["C&W"](Network(), split.images, split.labels)  # type: ignore[index]
    distance = float(np.median((x_adv - split.images).flatten(1).norm(dim=1)))
    assert numbers["C&W", "L2 of the attack, median"].value == pytest.approx(distance, rel=1e-4)
    assert numbers["C&W", "window (decades), mean"].value <= 4


def test_the_deltas_of_no_channel_are_those_of_the_attack(bench: Bench) -> None:
    channels = {"none": Identity(), "Uniform": Uniform(0.05)}
    found = ChannelDeltas(**HERE, channels=channels, limits={"Uniform": 0.5}).run(bench)
    numbers, split = cells(found.tables[0]), Split()
    delta = HERE["attacks"]["C&W"](Network(), split.images, split.labels) - split.images  # type: ignore[index]
    length = float(delta.flatten(1).norm(dim=1).mean())
    assert numbers["none", "L2"].value == pytest.approx(length, rel=1e-4)
    assert numbers["none", "recovered (%)"].value == 0
    expected = (length**2 + 0.05**2 * 3 * SIZE**2) ** 0.5  # the attack and the noise are perpendicular
    assert numbers["Uniform", "L2"].value == pytest.approx(expected, rel=0.1)
    assert found.verdicts[0].outcome == "refuted"


def test_pictures_show_an_image_and_say_how_many_are_recovered(bench: Bench) -> None:
    found = Pictures(**HERE, channels={"none": Identity()}, fourier=True).run(bench)
    numbers = cells(found.tables[0])
    assert numbers["original", "L2"].value == 0
    assert numbers["none", "L2"] == numbers["attacked", "L2"]
    assert numbers["none", "class"] != numbers["original", "class"]
    assert (found.verdicts[0].outcome, found.verdicts[0].reason) == ("undecided", f"0 of {N} broken images")
    assert len(found.figures["pictures"].axes) == 6 + 3  # with a scale beside each spectrum
