"""Certified radii against a classifier whose smoothed version is known exactly, and against published ones."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm
from torch import Tensor, nn

from defenses import Chain, ColourDepth, Defended, Gauss, GaussianNoise, PapersGauss, PNIWeights, RobustNet
from defenses.voting import Vote
from evaluation.numbers import wilson
from evaluation.smoothing import Smoothing, certified_accuracy, certify, lower_bound, smoothing_base
from models import ResNet20
from tests.attacks.toys import Linear, NoisyLinear, images, network

STD = 0.25


class TwoSides(nn.Module):
    """Class 1 on one side of a hyperplane: under N(0, std^2) its probability is Phi(distance / std)."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.linear = Linear(2, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)

    def distances(self, x: Tensor) -> Tensor:
        """Signed, positive on the side of class 1."""
        z, w = self.linear(x).detach(), self.linear.w.detach().flatten(1)
        return (z[:, 1] - z[:, 0]) / (w[1] - w[0]).norm()


class Recorded(nn.Module):
    """Keeps every pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.passes: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Tensor):  # and no symbol, when BatchNorm is looked for
            self.passes.append(x.clone())
        logits: Tensor = self.model(x)
        return logits


def at_distances(model: TwoSides, distances: Tensor) -> Tensor:
    """Images at these signed distances from the plane."""
    w = model.linear.w.detach()
    x, distances = images(len(distances)).to(w), distances.to(w)
    normal = (w[1] - w[0]) / (w[1] - w[0]).norm()
    return x + (distances - model.distances(x)).view(-1, 1, 1, 1) * normal


def tail(hits: int, n: int, p: float) -> float:
    """Probability of `hits` or more, term by term."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(hits, n + 1)
    ]
    return math.fsum(map(math.exp, logs))


@pytest.mark.parametrize(("hits", "n"), [(1, 1), (1, 10), (7, 10), (60, 100), (99, 100), (100, 100), (990, 1000)])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_bound_solves_the_binomial_tail(hits: int, n: int, alpha: float) -> None:
    p = brentq(lambda p: tail(hits, n, p) - alpha, 1e-12, 1 - 1e-12, xtol=1e-14)
    assert lower_bound(hits, n, alpha) == pytest.approx(p, rel=1e-8)
    assert lower_bound(0, n, alpha) == 0


def test_radii_are_those_that_the_authors_published() -> None:
    """Their certificates of CIFAR-10 at noise 0.25, n = 100,000, alpha 0.001: no, one, two ... copies astray."""
    smoothing = Smoothing(STD, n=100_000)
    radii = [float(f"{smoothing.radius(100_000 - astray):.3g}") for astray in range(6)]
    assert radii == [0.953, 0.935, 0.922, 0.913, 0.905, 0.898]
    assert smoothing.largest_radius == smoothing.radius(100_000)
    # The fewest samples that are accepted are the fewest that can certify.
    assert Smoothing(STD, n=10).largest_radius > 0
    assert lower_bound(9, 9, 0.001) < 0.5


@pytest.mark.parametrize("p", [0.5, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("n", [10, 100, 1000])
def test_the_bound_is_too_high_with_probability_alpha_at_most(p: float, n: int) -> None:
    """Exactly, by summing over all outcomes."""
    above = [hits for hits in range(n + 1) if lower_bound(hits, n, 0.01) > p]
    assert binom.pmf(above, n, p).sum() <= 0.01


def test_radii_grow_with_the_samples_at_an_equal_share_of_hits_up_to_the_true_one() -> None:
    for share in (0.6, 0.9, 0.99, 1.0):
        radii = [Smoothing(STD, n=n).radius(round(share * n)) for n in (100, 200, 500, 1000, 10_000, 1_000_000)]
        assert radii == sorted(radii)
        assert radii[0] < radii[-1] < STD * norm.ppf(share)
    radii = [Smoothing(STD, n=1000).radius(hits) for hits in range(1001)]
    assert radii == sorted(radii)
    assert radii[500] == 0 < radii[600]


def test_hits_have_the_probability_of_the_closed_form() -> None:
    """20 binomial tests, error probability 1e-6 together; the answer is that of the plane."""
    model, distances = TwoSides(), torch.linspace(-0.5, 0.5, 20, dtype=torch.float64)
    certificates = certify(model, at_distances(model, distances), Smoothing(STD, n=1000))
    for distance, certificate in zip(distances.tolist(), certificates, strict=True):
        share = norm.cdf(abs(distance) / STD)
        assert binomtest(certificate.hits, 1000, share).pvalue > 1e-6 / 20
        assert certificate.predicted in (-1, int(distance > 0))
        assert (certificate.predicted == -1) == (certificate.radius == 0)
        assert certificate.radius == Smoothing(STD, n=1000).radius(certificate.hits)
    assert sum(certificate.predicted >= 0 for certificate in certificates) >= 16


@pytest.mark.parametrize("distance", [0.05, 0.25, 0.4])
def test_no_radius_reaches_over_the_plane_but_with_probability_alpha(distance: float) -> None:
    """400 images, alpha 0.05; passes always at error probability 1e-6."""
    model = TwoSides(torch.float32)
    x = at_distances(model, torch.full((400,), distance))
    certificates = certify(model, x, Smoothing(STD, n0=20, n=100, alpha=0.05))
    beyond = sum(certificate.radius > distance for certificate in certificates)
    assert beyond <= binom.isf(1e-6, 400, 0.05)
    assert sum(certificate.predicted == 0 for certificate in certificates) <= binom.isf(1e-6, 400, 0.05)


def test_on_the_plane_it_abstains_but_with_probability_alpha() -> None:
    model = TwoSides(torch.float32)
    x = at_distances(model, torch.zeros(300))
    certificates = certify(model, x, Smoothing(STD, n0=20, n=100, alpha=0.05))
    assert sum(certificate.predicted >= 0 for certificate in certificates) <= binom.isf(1e-6, 300, 0.05)


def test_noise_of_the_network_adds_to_the_smoothing_noise() -> None:
    model = TwoSides()
    x = at_distances(model, torch.tensor([0.2, 0.3], dtype=torch.float64))
    certificates = certify(NoisyLinear(model.linear, 0.25), x, Smoothing(STD, n=4000))
    for distance, certificate in zip((0.2, 0.3), certificates, strict=True):
        assert binomtest(certificate.hits, 4000, norm.cdf(distance / (STD * 2**0.5))).pvalue > 1e-6


@pytest.mark.parametrize("most_images", [1, 7, 100, 250, 5000])
def test_the_draws_depend_on_seed_and_image_only(most_images: int) -> None:
    model, x, smoothing = TwoSides(), images(3), Smoothing(STD, n0=10, n=130)
    expected = certify(model, x, smoothing, seed=1, first=5)
    assert certify(model, x, smoothing, 1, 5, most_images) == expected
    assert [certify(model, x[i : i + 1], smoothing, 1, 5 + i, most_images)[0] for i in range(3)] == expected
    others = (certify(model, x, smoothing, seed=2, first=5), certify(model, x, smoothing, seed=1, first=6))
    assert all([c.hits for c in other] != [c.hits for c in expected] for other in others)


def test_more_samples_begin_with_the_fewer() -> None:
    passes = {}
    for n in (130, 300):
        recorded = Recorded(TwoSides())
        certify(recorded, images(1), Smoothing(STD, n0=10, n=n), most_images=n)
        selection, *estimation = recorded.passes
        passes[n] = torch.cat(estimation)
        assert len(selection) == 10
        assert len(passes[n]) == n
    assert torch.equal(passes[300][:130], passes[130])
    noise = (passes[300] - images(1)).flatten()
    # Neither clipped nor of another size: error probability 1e-6.
    assert abs(float(noise.std()) / STD - 1) < 5 * (1 / (2 * len(noise))) ** 0.5
    assert passes[300].min() < 0


def test_noisy_weights_take_a_pass_per_sample() -> None:
    recorded = Recorded(PNIWeights(network()))
    certify(recorded, images(1), Smoothing(STD, n0=3, n=10))
    assert [len(x) for x in recorded.passes] == [1] * 13


def test_a_network_is_left_as_it_was() -> None:
    model, x = RobustNet(ResNet20()).train(), torch.rand(1, 3, 8, 8)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    certify(model, x.contiguous(memory_format=torch.channels_last), Smoothing(STD, n0=5, n=10))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_noise_is_not_added_twice() -> None:
    inner, cd, gauss = network(), ColourDepth(4), Gauss(0.12)
    assert smoothing_base(Defended(inner, [gauss])) == (inner, 0.12)
    assert smoothing_base(Vote(Defended(inner, [gauss]), 5)) == (inner, 0.12)
    base, std = smoothing_base(Defended(inner, [gauss, cd]))
    assert (list(base.channels), base.network, std) == ([cd], inner, 0.12)
    base, std = smoothing_base(Defended(inner, [Chain([gauss, cd]), cd]))
    assert (list(base.channels), base.network, std) == ([cd, cd], inner, 0.12)
    # The papers' scale of noise is another one; radii are in pixels.
    assert smoothing_base(Defended(inner, [PapersGauss(0.03)]))[1] == pytest.approx(0.03 / 3**0.5)


@pytest.mark.parametrize(
    "build",
    [
        network,
        lambda: Defended(network(), []),
        lambda: Defended(network(), [ColourDepth(4), Gauss(0.1)]),
        lambda: Defended(network(), [Gauss(0.0)]),
        lambda: RobustNet(network(), init=GaussianNoise(0.1)),
    ],
)
def test_other_noise_belongs_to_the_network(build: type[nn.Module]) -> None:
    model = build()
    assert smoothing_base(model) == (model, None)


def test_certified_accuracy_is_counted() -> None:
    radii, correct = np.array([0.0, 0.1, 0.3, 0.5, 0.7]), np.array([False, True, True, False, True])
    curve = certified_accuracy(radii, correct, at=(0, 0.1, 0.2, 0.6, 0.8))
    assert [point.correct for point in curve] == [3, 3, 2, 1, 0]
    assert [point.interval for point in curve] == [wilson(point.correct, 5) for point in curve]
    with pytest.raises(ValueError, match="n >= 1"):
        certified_accuracy(radii[:0], correct[:0])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"std": 0.0}, "^std must be a finite number > 0, got 0.0$"),
        ({"std": float("nan")}, "^std must be"),
        ({"n0": 0}, "^n0 must be at least 1, got 0$"),
        ({"n": 9}, "^n, the samples, must be at least 10 at alpha 0.001, got 9$"),
        ({"n": 2, "alpha": 0.25}, "^n, the samples, must be at least 3 at alpha 0.25, got 2$"),
        ({"n": 0, "alpha": 0.9}, "^n, the samples, must be at least 1 at alpha 0.9, got 0$"),
        ({"alpha": 1.0}, r"^alpha must lie in \(0, 1\), got 1.0$"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Smoothing(**{"std": STD, **setting})


def test_impossible_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="most_images must be at least 1, got 0"):
        certify(network(), images(1), Smoothing(STD), most_images=0)
    with pytest.raises(ValueError, match="0 <= hits <= n"):
        lower_bound(11, 10, 0.1)


def test_an_answer_that_is_no_number_is_refused() -> None:
    class Diverged(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) * float("nan")

    with pytest.raises(FloatingPointError, match="NaN"):
        certify(Diverged(), images(1), Smoothing(STD))
