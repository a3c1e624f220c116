"""Matrices without their smallest singular values, with a derivative that bears repeated ones."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def truncated(x: Tensor, rank: int) -> Tensor:
    """Matrices [..., H, W] -> their nearest ones of rank 1 <= `rank` <= min(H, W) (Eckart & Young 1936)."""
    nearest: Tensor = _Truncated.apply(x, rank)
    return nearest


class _Truncated(torch.autograd.Function):
    """Matrices [..., H, W] -> their nearest ones of some rank, with a derivative whose only poles are at the cut.

    PyTorch's derivative of the decomposition divides by the difference of every two singular values, although what
    belongs to two kept or to two dropped ones cancels; for an image with equal ones it is not a number.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int) -> Tensor:
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        ctx.rank = rank
        ctx.save_for_backward(u, s, vh)
        with torch.autocast(x.device.type, enabled=False):
            return (u[..., :rank] * s[..., None, :rank]) @ vh[..., :rank, :]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        u, s, vh = ctx.saved_tensors
        ut, v = u.mT, vh.mT
        kept = torch.arange(s.shape[-1], device=s.device) < ctx.rank
        within = ut @ gradient @ v
        same, swapped = _factors(s, kept)
        # The derivative is a symmetric map, so that it is its own transpose.
        moved = u @ (same * within + swapped * within.mT) @ vh
        beyond_u = (gradient - u @ (ut @ gradient)) @ (v * kept) @ vh  # 0 unless H > W
        beyond_v = (u * kept) @ (ut @ (gradient - (gradient @ v) @ vh))  # 0 unless H < W
        return moved + beyond_u + beyond_v, None


def _factors(s: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Of M_ij and M_ji in the derivative at ij, in the basis of singular vectors; [..., n, n] of singular values s."""
    i, j = s[..., :, None], s[..., None, :]
    gap = ((i - j) * (i + j)).abs()
    cut = (kept[:, None] ^ kept) & (gap > 0)  # without a gap there is no derivative; the plain projection then
    same = torch.where(cut, torch.maximum(i, j) ** 2 / gap, (kept[:, None] | kept).to(s.dtype))
    return same, torch.where(cut, i * j / gap, 0)
