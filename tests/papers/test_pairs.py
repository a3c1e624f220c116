"""Pairs of right originals and broken images: which images they are, and statistics over them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks import Attack, CarliniWagner
from attacks.base import Log, Trace
from attacks.goal import Goal
from attacks.shown import Shown
from papers import Bench, Findings, Source, Toward
from papers.experiment import Experiment
from papers.pairs import Paired, larger, matched, pairs_of, quantile, quantile_ratio
from papers.toward import shifted

CLASSES, N = 3, 12


class Brightest(nn.Module):
    """Answers the brightest of the three colours."""

    def forward(self, x: Tensor) -> Tensor:
        return 10 * x.mean((2, 3))


class Split:
    """Images of one colour each; every third label is wrong."""

    def __getitem__(self, places: list[int]) -> tuple[Tensor, Tensor]:
        colour = torch.tensor(places) % CLASSES
        images = 0.2 + 0.1 * torch.nn.functional.one_hot(colour, CLASSES)[:, :, None, None].expand(-1, -1, 4, 4)
        return images, torch.where(torch.tensor(places) % 4 == 3, (colour + 1) % CLASSES, colour)


@dataclass(frozen=True)
class Lift(Attack):
    """Lifts the next colour, but only of every second image of a batch."""

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        log, x_adv = Log(0, x, goal), x.clone()
        rows = torch.arange(0, len(x), 2)
        x_adv[rows, (goal.label[rows] + 1) % CLASSES] = 0.9
        return log.trace(x_adv)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, lambda name: Brightest(), lambda data: Split(), say=lambda line: None)


def test_pairs_are_images_that_were_right_and_are_wrong_now(bench: Bench) -> None:
    network, source = bench.network("any"), Source("any", N, size=N)
    part = next(bench.parts(source))
    originals = pairs_of(bench, network, None, source, part)
    assert originals.index.tolist() == [i for i in range(N) if i % 4 != 3]
    assert torch.equal(originals.answer, originals.label)
    broken = pairs_of(bench, network, Lift(), source, part)
    assert broken.index.tolist() == [0, 2, 4, 6, 8, 10]
    assert torch.equal(broken.answer, (broken.label + 1) % CLASSES)
    assert torch.equal(broken.x, part.x[broken.index])


@dataclass(frozen=True)
class Distances(Paired):
    """For the test alone."""

    def cost(self, bench: Bench):  # type: ignore[no-untyped-def]
        return self.attack_cost(bench)

    def run(self, bench: Bench) -> Findings:
        raise NotImplementedError


def test_collected_arrays_follow_the_pairs_also_where_a_batch_has_none(bench: Bench) -> None:
    experiment = Distances(title="", network="any", data="any", n=N)
    assert isinstance(experiment, Experiment)

    def make(pairs):  # type: ignore[no-untyped-def]
        return {"far": (pairs.x_adv - pairs.x).flatten(1).norm(dim=1).numpy()}

    found = experiment.collected(bench, ("far",), Lift(), {"far": ()}, make)
    assert found["index"].tolist() == [0, 2, 4, 6, 8, 10]
    np.testing.assert_allclose(found["far"], 0.7 * 4, rtol=1e-6)

    @dataclass(frozen=True)
    class Nothing(Lift):
        def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
            return Log(0, x, goal).trace(x.clone())

    empty = experiment.collected(bench, ("far",), Nothing(), {"far": (), "all": (2, 3)}, make)
    assert {name: value.shape for name, value in empty.items()} == {"far": (0,), "all": (0, 2, 3), "index": (0,)}


def test_matched_keeps_the_images_of_both() -> None:
    one = {"index": np.array([0, 2, 5, 7]), "v": np.array([10.0, 12.0, 15.0, 17.0])}
    other = {"index": np.array([2, 3, 7]), "v": np.array([2.0, 3.0, 7.0])}
    a, b = matched(one, other)
    assert (a["index"].tolist(), b["index"].tolist()) == ([2, 7], [2, 7])
    assert (a["v"].tolist(), b["v"].tolist()) == ([12, 17], [2, 7])


def test_larger_counts_ties_for_nobody() -> None:
    first, second = larger(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
    assert (first.tolist(), second.tolist()) == ([0, 0, 1], [0, 1, 0])


def test_quantiles_with_intervals() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, 102.0))
    median = quantile(values, 0.5)
    assert median.value == 51
    assert median.low is not None
    assert median.high is not None
    assert 35 < median.low < 51 < median.high < 67
    # Resampled together, a ratio that is the same for every image has no spread, whatever the images.
    ratio = quantile_ratio(3 * values, values, 0.9)
    np.testing.assert_allclose(ratio, (3, 3, 3), rtol=1e-9)


def test_toward_reaches_the_class_after_the_label(bench: Bench) -> None:
    x, _ = Split()[[0, 1, 2]]
    label = torch.arange(3)
    model = bench.network("any").module
    assert shifted(label, 1, CLASSES).tolist() == [1, 2, 0]
    for by, wanted in ((1, [1, 2, 0]), (2, [2, 0, 1])):
        x_adv = Toward(CarliniWagner(steps=40, search_steps=3), by)(model, x, label)
        assert model(x_adv).argmax(1).tolist() == wanted
