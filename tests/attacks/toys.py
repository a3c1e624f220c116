"""Models whose nearest boundary point, worst loss or gradient is known in closed form."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from defenses import (
    Defended,
    Gauss,
    GaussianNoise,
    Laplace,
    ParamNet,
    PNIActivations,
    PNIWeights,
    RobustNet,
    Uniform,
)
from defenses.randomness import normal_like

ORDER = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}


class Linear(nn.Module):
    """`classes` logits w_k . x + b_k, everything in float64 unless said otherwise."""

    def __init__(
        self,
        classes: int = 2,
        shape: tuple[int, int, int] = (2, 3, 3),
        seed: int = 0,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(scale * torch.randn(classes, *shape, generator=generator, dtype=dtype))
        self.b = nn.Parameter(torch.zeros(classes, dtype=dtype))
        # The middle of the cube lies on no boundary by much, nor far from one.
        with torch.no_grad():
            self.b -= (self.w * 0.5).flatten(1).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w.flatten(1).T + self.b

    def nearest(self, x: Tensor, y: Tensor, norm: str) -> Tensor:
        """Distance [B] of the nearest point of another class, in the whole space (no box).

        min over k != y of (z_y - z_k) / ||w_y - w_k||_dual; 0 for images that are wrong already.
        """
        dual = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}[norm]
        z, w = self(x).detach(), self.w.detach().flatten(1)
        distance = torch.full((len(x), len(w)), float("inf"), dtype=x.dtype)
        for i in range(len(x)):
            for k in range(len(w)):
                if k != y[i]:
                    slope = torch.linalg.vector_norm(w[y[i]] - w[k], ord=dual)
                    distance[i, k] = (z[i, y[i]] - z[i, k]).clamp_min(0) / slope
        return distance.amin(1)


class NoisyLinear(nn.Module):
    """Logits of `Linear` at x + N(0, std^2): the mean over draws of the margin's gradient is the linear one."""

    random, shared = True, False

    def __init__(self, linear: Linear, std: float) -> None:
        super().__init__()
        self.linear, self.std = linear, std

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x + normal_like(x, self.std))


def images(batch: int = 4, shape: tuple[int, int, int] = (2, 3, 3), seed: int = 0) -> Tensor:
    """Images in [0.35, 0.65], far from 0 and 1, so that the box does not matter to small perturbations."""
    generator = torch.Generator().manual_seed(seed)
    return 0.35 + 0.3 * torch.rand(batch, *shape, generator=generator, dtype=torch.float64)


def distance(a: Tensor, b: Tensor, norm: str) -> Tensor:
    """[B], in the norm of this name."""
    return torch.linalg.vector_norm((a - b).flatten(1), ord=ORDER[norm], dim=1)


def network() -> nn.Module:
    """Conv, BatchNorm, linear, in float64."""
    layers = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9, 5)
    )
    return layers.double().eval()


# Every kind of noise, and those whose draw a batch shares.
RANDOM: dict[str, Callable[[], nn.Module]] = {
    "RobustNet": lambda: RobustNet(network()),
    "RobustNet, first layer": lambda: RobustNet(network(), inner=GaussianNoise(0.0)),
    "PNIActivations": lambda: PNIActivations(network()),
    "PNIWeights": lambda: PNIWeights(network()),
    "ParamNet": lambda: ParamNet(network(), 0.05),
    "Gauss": lambda: Defended(network(), [Gauss(0.1)]),
    "Uniform": lambda: Defended(network(), [Uniform(0.1)]),
    "Laplace": lambda: Defended(network(), [Laplace(0.1)]),
}
SHARED = ("PNIWeights", "ParamNet")
