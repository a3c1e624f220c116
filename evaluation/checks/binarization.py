"""The binarization test, Zimmermann et al. 2022, https://arxiv.org/abs/2206.13991: attacks on what can be broken.

The network's last layer is exchanged, image by image, for a two-class one that tells a known point on the border of the
ball from many inside it. An adversarial image then exists for certain; the evaluation's attack has to find it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from attacks import DLR, Attack, Ball, undisturbed
from defenses import Stream, drawing_from, is_random
from defenses.randomness import uniform_like
from evaluation.batch import Rows, rows_of
from evaluation.checks.check import Check, Question, percent, too_few, too_many
from evaluation.checks.diagnostics import RandomPoints, Reference, gradients, sized
from evaluation.cost import Cost
from evaluation.judge import examine
from evaluation.records import Records

BINARIZATION = Question("binarization", "Zimmermann et al. 2022, https://arxiv.org/abs/2206.13991")
PARTS = ("original", "border", "attacked", "random")
INNER = 999  # points inside, and the image itself
_GAP = 0.95  # of the radius: how far inside points may lie
_WANTED = 0.95  # of the images, the attack must break so many
_CLOSE = 0.999  # of the way to the border's point lies the boundary of a network without noise, that of a random one at
_HALF = 0.5  # half of it, or its own noise would carry the point back
_PASSES = 8  # draws of a random network over which features are averaged
_AT_ONCE = 256  # images in one pass


class LastLinear(nn.Module):
    """Images [B, C, H, W] -> what the last linear layer of a network is given, [B, features].

    Args:
        network: any whose forward pass calls an `nn.Linear`, under whatever noise.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            ValueError: no linear layer is called, or not with one row per image.
        """
        seen: list[Tensor] = []
        with self._listening(seen):
            self.network(x)
        if not seen or seen[-1].dim() != 2 or len(seen[-1]) != len(x):
            raise ValueError(f"{type(self.network).__name__} has no nn.Linear that takes one row per image at its end")
        return seen[-1]

    @contextmanager
    def _listening(self, seen: list[Tensor]) -> Iterator[None]:
        layers = [part for part in self.network.modules() if isinstance(part, nn.Linear)]
        # Registered last, so noise on the layer's input is in what is heard.
        handles = [layer.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class Binarized(nn.Module):
    """A network whose last layer has two classes, another one for each image of a batch.

    Args:
        network: see `LastLinear`.
        weight: [B, features], of class 1.
        bias: [B].
    """

    def __init__(self, network: nn.Module, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.features = LastLinear(network)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Images [k B, C, H, W], B after B -> logits [k B, 2]; class 0 is the inside."""
        features = self.features(x)
        copies = len(x) // len(self.weight)
        score = (features * self.weight.repeat(copies, 1)).sum(1) + self.bias.repeat(copies)
        return torch.stack([-score / 2, score / 2], 1)


def binarization(
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    folder: Path,
    at: Reference,
    seed: int,
    draws: int,
    inner: int = INNER,
    in_time: Callable[[], None] = lambda: None,
) -> Check:
    """Whether the attack finds an adversarial image where there is one for certain.

    Args:
        network: images -> logits.
        batches: images in [0, 1] and labels, which are not looked at.
        folder: where the rows go; a test that was killed goes on.
        at: the attack, with all its settings; beside it, as many random points as it takes gradients.
        seed: of points, attack and judge.
        draws: of the judge; the majority decides.
        inner: points inside the ball, for each image.
        in_time: called before each batch; what it raises ends the test.
    """
    if isinstance(at.attack.loss, DLR):
        return BINARIZATION.not_run("the attack's loss, DLR, needs more than two classes")
    manifest = {"adversaries": PARTS, "attack": repr(at.adversary), "inner": inner, "seed": seed, "draws": draws}
    records = Records(folder, {**manifest, "batches": [len(x) for x, _ in batches]})
    first = 0
    for number, (x, _) in enumerate(batches):
        in_time()
        try:
            _batch(network, x, number, first, records, at, (seed, draws, inner))
        except ValueError as error:  # of `LastLinear`
            return BINARIZATION.not_run(str(error))
        first += len(x)
    return _verdict(rows_of(records.table()), gradients(at.adversary))


def cost_of_binarization(random: bool, queries: int, draws: int) -> Cost:
    """Passes for each image, beside those of the attack.

    Args:
        random: whether the network is.
        queries: random points that are tried.
        draws: of the judge.
    """
    return Cost(forward=(INNER + 2) * (_PASSES if random else 1) + queries + len(PARTS) * draws)


def _batch(
    network: nn.Module, x: Tensor, number: int, first: int, records: Records, at: Reference, how: tuple[int, int, int]
) -> None:
    if all(records.done(part, number) for part in PARTS):
        return
    seed, draws, inner = how
    with undisturbed(network), torch.no_grad(), drawing_from(Stream.named(seed, "binarization", index=first)):
        x = x.detach().clone()
        border = _border(at.ball, x)
        weight, bias = _classifiers(network, x, border, at.ball, inner)
    model = Binarized(network, weight, bias).eval()
    outside, inside = torch.ones(len(x), dtype=torch.int64, device=x.device), torch.zeros_like(x[:, 0, 0, 0]).long()
    blind = RandomPoints(ball=at.ball, trials=gradients(at.adversary))
    work: dict[str, tuple[Tensor, Tensor, Attack | None]] = {
        "original": (x, inside, None),
        "border": (border, outside, None),
        "attacked": (x, inside, at.adversary),
        "random": (x, inside, blind),
    }
    for part, (images, wanted, attack) in work.items():
        found = examine(model, (images, wanted), first, f"binarization/{part}", attack, seed, draws)
        records.write(part, number, found.rows)


def _border(ball: Ball, x: Tensor) -> Tensor:
    """A random point at distance eps from each image, apart from what the cube cuts off."""
    direction = ball.ascent(2 * uniform_like(x) - 1)
    return ball.project(x + ball.eps * direction, x)


def _classifiers(network: nn.Module, x: Tensor, border: Tensor, ball: Ball, inner: int) -> tuple[Tensor, Tensor]:
    """Weight [B, features] and bias [B] of class 1, the border's point, for each image."""
    random, smaller = is_random(network), sized(ball, _GAP * ball.eps)
    found = []
    for image, point in zip(x, border, strict=True):
        inside = smaller.sample(image.expand(inner, *image.shape).contiguous())
        points = torch.cat([image.unsqueeze(0), inside, point.unsqueeze(0)])
        found.append(_fitted(_features(network, points, random), _HALF if random else _CLOSE))
    weight, bias = (np.stack(column) for column in zip(*found, strict=True))
    return torch.from_numpy(weight).to(x), torch.from_numpy(bias).to(x)


def _features(network: nn.Module, points: Tensor, random: bool) -> NDArray[np.float64]:
    """[points, features], of a random network the mean of several draws."""
    layer, passes = LastLinear(network), _PASSES if random else 1
    asked = [torch.cat([layer(some).double() for some in torch.split(points, _AT_ONCE)]) for _ in range(passes)]
    return np.asarray(torch.stack(asked).mean(0).cpu())


def _fitted(features: NDArray[np.float64], close: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logistic regression of the last row against all others, its boundary moved towards the last, scores up to 1."""
    middle, scale = features.mean(axis=0), features.std(axis=0).max() + 1e-12
    label = np.zeros(len(features), dtype=int)
    label[-1] = 1
    fit = LogisticRegression(C=1e5, class_weight="balanced", max_iter=1000, tol=1e-3)
    fit.fit((features - middle) / scale, label)
    weight = fit.coef_[0] / scale
    score = features @ weight
    inside, outside = score[:-1].max(), score[-1]
    boundary = inside + close * (outside - inside) if outside > inside else (inside + outside) / 2
    largest = np.abs(score - boundary).max() + 1e-12
    return weight / largest, np.asarray(-boundary / largest)


def _verdict(rows: dict[str, Rows], queries: int) -> Check:
    majority = {part: 2 * found.correct > found.draws for part, found in rows.items()}
    solvable = majority["original"] & majority["border"]
    n, all_of_them = int(solvable.sum()), len(solvable)
    if not n:
        return BINARIZATION.not_run(f"the classifier tells the border from the inside for none of {all_of_them} images")
    by_attack, by_luck = (~majority[part] & solvable for part in ("attacked", "random"))
    found, luck = int(by_attack.sum()), int(by_luck.sum())
    text = (
        f"the attack broke {found} of {n} images that can be broken, {percent(found / n)} (wanted: {percent(_WANTED)});"
        f" {queries} random points broke {luck}; {all_of_them - n} could not be set up"
    )
    figures = {"broken": found, "random": luck, "failed_setup": all_of_them - n, "n": n}
    if too_few(found, n, _WANTED):
        return BINARIZATION.answered(True, text, figures)
    # Where blind luck does as well, the task was too easy: to succeed at it says nothing about the attack.
    better, worse = int((by_attack & ~by_luck).sum()), int((by_luck & ~by_attack).sum())
    if not too_many(better, better + worse, 0.5):
        return BINARIZATION.not_run(f"too easy to tell the attack from luck: {text}")
    return BINARIZATION.answered(False, text, figures)
