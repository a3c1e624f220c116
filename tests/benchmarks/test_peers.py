"""The other libraries' attacks do what the comparisons take for granted."""

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.peers import PEERS
from tests.attacks.toys import Linear, distance, images

NAMES = ("foolbox", "torchattacks", "pyautoattack", "adv_lib")
pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, NAMES)),
    reason="needs the other libraries: make bench-install; .venv-bench/bin/python -m pytest tests/benchmarks",
)
EPS, STEPS, SEARCH = 0.03, 5, 2
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "PGD": [{"eps": EPS, "step_size": 0.01, "steps": STEPS}],
    "APGD": [{"eps": EPS, "steps": STEPS, "loss": loss} for loss in ("ce", "dlr")],
    "AutoAttack": [{"eps": EPS, "steps": STEPS, "queries": 20}],
    "C&W": [{"steps": STEPS, "search_steps": SEARCH, "c": 1.0}],
    "C&W, fixed c": [{"steps": STEPS, "c": 10.0}],
    "DDN": [{"steps": STEPS}],
    "FMN": [{"steps": STEPS}],
}
LINF = ("PGD", "APGD", "AutoAttack")
# What the settings say; APGD takes one more at its start.
GRADIENTS = {"PGD": STEPS, "APGD": STEPS + 1, "C&W": STEPS * SEARCH, "C&W, fixed c": STEPS, "DDN": STEPS, "FMN": STEPS}
CASES = [
    pytest.param(kind, library, settings, id="-".join([kind, library, *filter(None, [settings.get("loss")])]))
    for kind, libraries in PEERS.items()
    for library in libraries
    for settings in SETTINGS[kind]
]


class Counting(nn.Module):
    """A small network that counts for how many batches gradients are asked, and was left in mixed modes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4 * 6 * 6, 10)
        self.train()
        self.bn.eval()
        self.gradients, self.trained = 0, False

    def forward(self, x: Tensor) -> Tensor:
        self.gradients += bool(x.requires_grad and torch.is_grad_enabled())
        self.trained |= self.training
        return self.fc(torch.relu(self.bn(self.conv(x))).flatten(1))


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def x(request: pytest.FixtureRequest) -> Tensor:
    x = torch.rand(6, 3, 6, 6)
    x[0, :, 0, 0], x[0, :, 1, 1] = 0, 1
    return x.contiguous(memory_format=request.param)


@pytest.mark.parametrize(("kind", "library", "settings"), CASES)
def test_results_are_images_in_the_ball_and_nothing_is_left_behind(
    kind: str, library: str, settings: dict[str, Any], x: Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    network = Counting()
    y = network.eval()(x).argmax(1)  # all right at the start
    network.train()
    network.bn.eval()
    network.gradients, network.trained = 0, False
    before, state = x.clone(), torch.get_rng_state()
    x_adv = PEERS[kind][library](network, x, y, **settings, seed=1)
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    assert not x_adv.requires_grad
    assert x_adv.amin() >= 0
    assert x_adv.amax() <= 1
    if kind in LINF:
        assert (x_adv - x).abs().amax() <= EPS + 1e-6
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert not network.bn.training
    assert not network.trained
    assert all(parameter.grad is None for parameter in network.parameters())
    assert "".join(capfd.readouterr()) == ""
    if kind == "C&W":  # may stop early when asked to; not here
        network.gradients = 0
        PEERS[kind][library](network, x, y, **settings, abort_early=False)
    if kind in GRADIENTS:
        assert network.gradients <= GRADIENTS[kind]
        if kind != "C&W, fixed c":  # stops early
            assert network.gradients == GRADIENTS[kind]


@pytest.mark.parametrize("library", PEERS["PGD"])
def test_the_seed_decides(library: str) -> None:
    network, x = Counting().eval(), torch.rand(2, 3, 6, 6)
    y = network(x).argmax(1)

    def attacked(seed: int | None = None) -> Tensor:
        return PEERS["PGD"][library](network, x, y, eps=EPS, step_size=0.001, steps=1, seed=seed)

    assert torch.equal(attacked(1), attacked(1))
    assert not torch.equal(attacked(1), attacked(2))
    torch.manual_seed(3)
    first, second = attacked(), attacked()
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(attacked(), first)


def _linear() -> tuple[Linear, Tensor, Tensor]:
    """With images that are 0.1 to 0.3 from the boundary: near ones are hard to hit, far ones meet the box."""
    linear, x = Linear(3, dtype=torch.float32), images(200).float()
    y = linear(x).argmax(1)
    nearest = linear.nearest(x, y, "L2")
    rows = (nearest > 0.1) & (nearest < 0.3)
    assert rows.sum() > 10
    return linear, x[rows], y[rows]


# foolbox's FMN shortens nothing (see there): it only has to break the images.
NEAREST: list[tuple[str, str, dict[str, Any], float]] = [
    *(("C&W", library, {"steps": 200, "search_steps": 7}, 1.03) for library in PEERS["C&W"]),
    *(("DDN", library, {"steps": 200}, 1.15) for library in PEERS["DDN"]),
    ("FMN", "adv-lib", {"steps": 200}, 1.03),
    ("FMN", "foolbox", {"steps": 200}, float("inf")),
]


@pytest.mark.parametrize(("kind", "library", "settings", "slack"), NEAREST)
def test_minimal_norm_attacks_find_the_nearest_boundary_of_a_linear_model(
    kind: str, library: str, settings: dict[str, Any], slack: float
) -> None:
    linear, x, y = _linear()
    x_adv = PEERS[kind][library](linear, x, y, **settings)
    logits = linear(x_adv).double()
    margin = logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -torch.inf).amax(1)
    broken = margin < 1e-5  # rounding may undo a hair's breadth
    nearest, found = linear.nearest(x, y, "L2"), distance(x_adv, x, "L2")
    assert broken.float().mean() > 0.8  # FMN has no second try
    assert torch.equal(x_adv[~broken], x[~broken])
    assert (found[broken] >= nearest[broken] * 0.999).all()
    assert found[broken].median() <= nearest[broken].median() * slack


@pytest.mark.parametrize("library", PEERS["C&W"])
def test_failures_of_carlini_wagner_come_back_as_they_were(library: str) -> None:
    linear, x, y = _linear()
    assert torch.equal(PEERS["C&W"][library](linear, x, y, steps=1, search_steps=1, c=1e-9), x)
