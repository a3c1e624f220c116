"""Square attack: random search by squares, Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attacks.balls import L2, Ball, Linf, pixels
from attacks.base import Attack, Log, Trace
from attacks.goal import Goal
from attacks.losses import Loss, Margin
from attacks.shown import Shown
from defenses.randomness import is_random, uniform_like

# Section 5: p is halved at these of 10,000 queries, and proportionally for other budgets. The paper's text leaves out
# 500, the authors' published runs do not.
_HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square(Attack):
    """Squares of the image get new values; what raises the loss is kept. Needs answers only, no gradient.

    On a random model one answer is luck, and the luckiest of many proposals more so. There a proposal races against the
    mean loss of the image that stands: it is asked about again as long as its own mean is larger, and takes the place
    after `confirmed` answers.

    Args:
        ball: Linf or L2.
        queries: most answers about an image, the start included; an answer of several draws (EOT) counts once.
        p_init: share of the pixels that the first squares cover, in (0, 1].
        loss: what grows.
        confirmed: answers of a random model that a proposal must win over; more for more noise and more queries.
    """

    ball: Ball = field(default_factory=Linf)
    queries: int = 5000
    p_init: float = 0.8
    loss: Loss = Margin()
    confirmed: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.ball, Linf | L2):
            raise ValueError(f"Square takes an Linf or L2 ball, got {self.ball}")
        if self.confirmed < 1:
            raise ValueError(f"Square takes confirmed >= 1, got {self.confirmed}")
        if self.queries < 0 or not 0 < self.p_init <= 1:
            raise ValueError(f"Square takes queries >= 0 and p_init in (0, 1], got {self.queries} and {self.p_init}")

    def __str__(self) -> str:
        return f"Square-{self.queries} ({type(self.ball).__name__}, eps {pixels(self.ball.eps)})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is that of the image that stands after each query."""
        log, x_adv, proposal = Log(self.queries, x, goal), x.clone(), x.clone()
        best, total, asked = torch.full_like(x[:, 0, 0, 0], float("-inf")), x.new_zeros(len(x)), x.new_zeros(len(x))
        needed = min(self.confirmed, self.queries) if is_random(model.model) else 1
        rows = torch.arange(len(x), device=x.device)
        for query in range(self.queries):
            # Drawn for the whole batch: nobody's draws depend on who has left.
            proposal = torch.where((asked == 0).view(-1, 1, 1, 1), self._proposal(x_adv, x, query), proposal)
            logits = log.asked(model.answers(proposal[rows]), rows)
            asked[rows] += 1
            total[rows] += self.loss(logits, goal[rows])
            mean, broken = total[rows] / asked[rows], goal[rows].broken(logits) & goal.first_success
            won = (mean > best[rows]) & (asked[rows] >= needed) | broken
            x_adv[rows[won]], best[rows[won]] = proposal[rows[won]], mean[won]
            over = rows[won | (mean <= best[rows])]
            asked[over] = total[over] = 0
            log.loss[query, rows] = best[rows]
            rows = rows[~broken]
            if not len(rows):
                break
        return log.trace(x_adv)

    def _proposal(self, x_adv: Tensor, x: Tensor, query: int) -> Tensor:
        linf = isinstance(self.ball, Linf)
        if query == 0:
            return (_stripes if linf else _tiles)(x, self.ball)
        halvings = sum(query * 10_000 > at * self.queries for at in _HALVED_AT)
        side = round((self.p_init / 2**halvings * x[0, 0].numel()) ** 0.5)
        side = min(max(side, 1 if linf else 3), *x.shape[2:])
        return (_new_square if linf else _new_bump)(x_adv, x, side, self.ball)


def _stripes(x: Tensor, ball: Ball) -> Tensor:
    """Section 3.3: vertical stripes one pixel wide, +-eps in each colour."""
    return ball.project(x + ball.eps * _signs(x[:, :, :1]), x)


def _tiles(x: Tensor, ball: Ball) -> Tensor:
    """Section 3.4: a grid of bumps, five along the shorter side, of norm eps."""
    side = max(1, min(x.shape[2:]) // 5)
    down, across = (torch.arange(n, device=x.device) for n in x.shape[2:])
    signs = _signs(x)[:, :, down // side][..., across // side]
    tiles = signs * _bump(side, x)[down % side][:, across % side]
    return ball.project(x + ball.eps * tiles / _norm(tiles, (1, 2, 3)), x)


def _new_square(x_adv: Tensor, x: Tensor, side: int, ball: Ball) -> Tensor:
    """Algorithm 2: one square, +-eps in each colour."""
    inside, _, _ = _square(x, side)
    step = ball.eps * _signs(x[:, :, :1, :1])
    moved, opposite = (torch.where(inside, ball.project(x + s, x), x_adv) for s in (step, -step))
    # Where nothing would change, the opposite: no query is spent on what is known.
    return torch.where((moved == x_adv).flatten(1).all(1).view(-1, 1, 1, 1), opposite, moved)


def _new_bump(x_adv: Tensor, x: Tensor, side: int, ball: Ball) -> Tensor:
    """Algorithm 3: a bump on one square; its norm is that of the square, of another one, and what was unused."""
    delta = x_adv - x
    here, down, across = _square(x, side)
    away, _, _ = _square(x, side)
    bumps = torch.stack([_bump(side, x), _bump(side, x).T])
    which = (uniform_like(x[:, 0, 0, 0]) < 0.5).long().view(-1, 1, 1)
    bump = bumps[which, down.unsqueeze(2), across.unsqueeze(1)].unsqueeze(1) * here
    unused = (ball.eps**2 - _norm(delta, (1, 2, 3)) ** 2).clamp_min(0) / x.shape[1]
    budget = (_norm(delta * (here | away)) ** 2 + unused).sqrt()
    new = _signs(x[:, :, :1, :1]) * bump + delta * here / _norm(delta * here)
    return ball.project(x + torch.where(here | away, new / _norm(new) * budget, delta), x)


def _square(x: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """A random square in each image: its mask [B, 1, H, W], and each line's [B, H] and column's [B, W] place in it."""
    places, masks = [], []
    for length in x.shape[2:]:
        first = (uniform_like(x[:, :1, 0, 0]) * (length - side + 1)).floor()
        place = torch.arange(length, device=x.device) - first.long()
        masks.append((place >= 0) & (place < side))
        places.append(place.clamp(0, side - 1))
    return (masks[0].unsqueeze(2) & masks[1].unsqueeze(1)).unsqueeze(1), places[0], places[1]


def _bump(side: int, like: Tensor) -> Tensor:
    """Equation 2 and below: two rectangular hills [side, side] of norm 1, the lower one a valley."""
    half = side // 2
    bump = torch.cat([_hill(half, side, like), -_hill(side - half, side, like)])
    return bump / bump.norm()


def _hill(height: int, width: int, like: Tensor) -> Tensor:
    """Of norm 1: at distance d from the centre (that of a chessboard king), the sum of 1/(j + 1)^2 from d on."""
    down, across = ((torch.arange(n, device=like.device) - n // 2).abs() for n in (height, width))
    heights = 1 / torch.arange(1, max(height, width) // 2 + 2, device=like.device, dtype=like.dtype) ** 2
    hill = heights.flip(0).cumsum(0).flip(0)[torch.maximum(down.unsqueeze(1), across)]
    return hill / hill.norm().clamp_min(torch.finfo(like.dtype).tiny)


def _signs(like: Tensor) -> Tensor:
    return (2 * (uniform_like(like) < 0.5) - 1).to(like.dtype)


def _norm(delta: Tensor, dims: tuple[int, ...] = (2, 3)) -> Tensor:
    """Never 0, so that it divides."""
    return torch.linalg.vector_norm(delta, dim=dims, keepdim=True).clamp_min(torch.finfo(delta.dtype).tiny)
