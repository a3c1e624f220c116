"""The leading eigenpairs of many symmetric matrices at once, known by their products with vectors."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

# [B, N] -> [B, N]: row b is multiplied by the b-th symmetric matrix.
Operator = Callable[[Tensor], Tensor]
Which = Literal["magnitude", "algebraic"]


class Eigenpairs(NamedTuple):
    """k leading eigenpairs of B symmetric matrices, in the order of the method.

    Attributes:
        values: [B, k], float64.
        vectors: [B, k, N] (or [B, k, C, H, W]) of L2 norm 1, in the dtype of the operator.
        residuals: [B, k], ||A v - value * v||_2: an eigenvalue of A lies within it of the value. float64.
        products: [B], how many products with a vector (for the exact path: gradients) each image has had.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: Tensor

    def converged(self, tolerance: float = 1e-3) -> Tensor:
        """[B, k], whether the residual is at most `tolerance` times the largest value of the image in magnitude."""
        return self.residuals <= tolerance * self.values.abs().amax(1, keepdim=True)


def lanczos(
    operator: Operator,
    start: Tensor,
    k: int = 1,
    *,
    steps: int = 40,
    tolerance: float = 1e-3,
    which: Which = "magnitude",
) -> Eigenpairs:
    """Lanczos with full reorthogonalisation (Golub & Van Loan, Matrix Computations, 4th edition, section 10.3).

    Ends when all pairs of all matrices have converged, see `Eigenpairs.converged`. A residual tells that a value is
    close to an eigenvalue, not that no larger one was missed: that is what a random start is for. One start sees one
    copy of a repeated eigenvalue: for k > 1, of values nearer to each other than the tolerance one may be left out.
    Where the space runs out (a matrix of low rank) it goes on with another vector, which sees the next copy.

    Args:
        operator: products with B matrices.
        start: [B, N], random.
        k: pairs wanted.
        steps: most products.
        tolerance: of the residual, relative to the largest value; the error of a value is about its square. 0 takes
            all steps.
        which: the largest by "magnitude", or the "algebraic" largest; in descending order.

    Raises:
        ValueError: k is not in 1 to min(steps, N), or `which` is none of the two.
    """
    batch, size = start.shape
    steps = min(steps, size)
    if not 1 <= k <= steps:
        raise ValueError(f"k must lie in 1 to {steps}, the smaller of steps and the size of the matrix, got {k}")
    if which not in get_args(Which):
        raise ValueError(f"which must be one of {', '.join(get_args(Which))}, got {which}")
    basis = start.new_zeros(batch, steps, size)
    matrix = torch.zeros(batch, steps, steps, dtype=torch.float64, device=start.device)
    following = _unit(start)
    for step in range(steps):
        basis[:, step] = following
        product = operator(following)
        matrix[:, step, step] = (product * following).sum(1)
        rest = _orthogonal(product, basis[:, : step + 1])
        coupling = torch.linalg.vector_norm(rest, dim=1, dtype=torch.float64)
        # What is left of a product when nothing is left of it.
        known = matrix[:, : step + 1, : step + 1]
        stuck = coupling <= torch.finfo(start.dtype).eps * known.abs().amax((1, 2))
        coupling = coupling.masked_fill(stuck, 0.0)
        pairs = _ritz(known, basis[:, : step + 1], coupling, k, which) if step + 1 >= k else None
        settled = tolerance > 0 and pairs is not None and bool(pairs.converged(tolerance).all())
        if settled or step + 1 == steps:
            break
        other = _orthogonal(start.roll(step + 1, 1), basis[:, : step + 1])
        # Once more at full length: what is left of a product may be little more than rounding.
        following = _unit(torch.where(stuck[:, None], other, rest))
        following = _unit(_orthogonal(following, basis[:, : step + 1]))
        matrix[:, step, step + 1] = matrix[:, step + 1, step] = coupling
    assert pairs is not None, "k <= steps"
    return pairs


def power_iteration(
    operator: Operator, start: Tensor, k: int = 1, *, steps: int = 20, tolerance: float = 1e-4
) -> Eigenpairs:
    """Power iteration as the papers ran it: towards the eigenvalue of the largest magnitude, of either sign.

    Their settings are the defaults: at most 20 steps, ended when v . Av changes by less than 1e-4 of itself, no
    momentum; further pairs after deflation, which takes v . Av from the direction of each pair that was found. A small
    change is no proof of convergence; `residuals` tells. Each matrix ends by itself.

    Args:
        operator: products with B matrices.
        start: [B, N], for every pair; the papers' is uniform in [0, 1).
        k: pairs wanted, in the order in which they are found.
        steps: most products per pair, at least 1.
        tolerance: of the relative change.

    Raises:
        ValueError: k is not in 1 to N, or steps is below 1.
    """
    if not 1 <= k <= start.shape[1] or steps < 1:
        raise ValueError(f"k must lie in 1 to {start.shape[1]} and steps be at least 1, got k {k}, steps {steps}")
    pairs: list[Eigenpairs] = []
    for _ in range(k):
        pairs.append(_dominant(_deflated(operator, tuple(pairs)), start, steps, tolerance))
    values, vectors, residuals = (torch.cat(parts, 1) for parts in list(zip(*pairs, strict=True))[:3])
    return Eigenpairs(values, vectors, residuals, torch.stack([pair.products for pair in pairs]).sum(0))


def _unit(vectors: Tensor) -> Tensor:
    """Vectors [B, N] of norm 1, however small they are; 0 stays 0."""
    tiny = torch.finfo(vectors.dtype).tiny
    vectors = vectors / vectors.abs().amax(1, keepdim=True).clamp_min(tiny)  # else the squares would be rounded to 0
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(tiny)


def _orthogonal(vectors: Tensor, basis: Tensor) -> Tensor:
    """Vectors [B, N] without their part in the span of the rows of [B, m, N]; twice is enough for rounding."""
    for _ in range(2):
        vectors = vectors - torch.einsum("bm,bmn->bn", torch.einsum("bmn,bn->bm", basis, vectors), basis)
    return vectors


def _ritz(matrix: Tensor, basis: Tensor, coupling: Tensor, k: int, which: Which) -> Eigenpairs:
    values, vectors = torch.linalg.eigh(matrix)
    rank = values.abs() if which == "magnitude" else values
    best = rank.argsort(1, descending=True)[:, :k]
    small = vectors.gather(2, best[:, None].expand(-1, vectors.shape[1], -1))
    large = torch.einsum("bmk,bmn->bkn", small.to(basis.dtype), basis)
    residuals = coupling[:, None] * small[:, -1].abs()
    return Eigenpairs(values.gather(1, best), large, residuals, best.new_full((len(best),), matrix.shape[1]))


def _deflated(operator: Operator, pairs: Sequence[Eigenpairs]) -> Operator:
    def product(vectors: Tensor) -> Tensor:
        result = operator(vectors)
        for pair in pairs:
            found = pair.vectors[:, 0]
            result = result - (pair.values.to(found.dtype) * (found * vectors).sum(1, keepdim=True)) * found
        return result

    return product


def _dominant(operator: Operator, start: Tensor, steps: int, tolerance: float) -> Eigenpairs:
    vector = kept = _unit(start)
    value = residual = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    running = torch.ones_like(value, dtype=torch.bool)
    products = torch.zeros_like(value, dtype=torch.int64)
    for _ in range(steps):
        product = operator(vector)
        products += running
        estimate = (product.double() * vector).sum(1)
        error = (product.double() - estimate[:, None] * vector).norm(dim=1)
        settled = (estimate - value).abs() <= tolerance * estimate.abs()
        kept = torch.where(running[:, None], vector, kept)
        value, residual = torch.where(running, estimate, value), torch.where(running, error, residual)
        running = running & ~settled
        if not running.any():
            break
        vector = _unit(product)
    return Eigenpairs(value[:, None], kept[:, None], residual[:, None], products)
