"""Leading eigenpairs of the input Hessian of the cross-entropy, image by image but batched.

EEPD section 3.7 with figure 6, ICLR draft section 5 with figure 3 and section C.12 with figures 18 and 19: the largest
eigenvalue of d^2 CE / dx^2 with the predicted class, at original and adversarial images. Three ways: `exact_curvature`
for piecewise linear networks, `lanczos_curvature` for all, and `power_curvature` as the papers did it.

Second derivatives do not see kinks. Along a line through a ReLU network the slope jumps wherever a unit switches, and
that part of the bending is in no Hessian.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from analysis.derivatives import Graph, Scale, checked_classes, cross_entropy, graph_of, pull_back, starts
from analysis.eigenpairs import Eigenpairs, Operator, Which, lanczos, power_iteration
from attacks import Model
from defenses import Stream, drawing_from
from defenses.randomness import normal_like, uniform_like

_BLOCK = 1 << 16  # pixels that are turned into float64 at a time


def exact_curvature(model: Model, x: Tensor, k: int = 1, *, scale: Scale = 1.0, chunk: int = 128) -> Eigenpairs:
    """The largest eigenvalues of J^T (diag p - p p^T) J, J the Jacobian of the logits: classes - 1 gradients an image.

    That matrix is the Hessian if and only if the second derivative of every logit vanishes at the image (or those
    that p - onehot(y) weighs cancel): if the network is piecewise linear and the image lies on no kink.

    - It is for convolutions, linear layers, ReLU and its kin, average and max pooling, dropout or noise that is added
      (one draw), BatchNorm in eval mode, normalisation, and channels that are linear (Fourier compression with a fixed
      mask, additive noise) or stand aside.
    - It is not for GELU, SiLU, tanh, attention, BatchNorm in training mode, and SVD or total variation as channels.
      There the matrix is the Gauss-Newton part of the Hessian and the rest is missing. `second_order_rest` measures it:
      ask it on some images before relying on this function.
    - Max pooling with equal inputs is a kink: the derivative is that of the one which PyTorch picks, as in every other
      method here. Equal zeros behind a ReLU do no harm, since none of them has a derivative.

    The label does not enter, and no eigenvalue is negative.

    Args:
        model: images -> logits [B, classes]; in eval mode meanwhile, and left as it was. A random one answers with one
            draw per chunk, from the stream around the call.
        x: images [B, C, H, W].
        k: eigenvalues, 1 to classes - 1: the others are 0. In descending order.
        scale: pixels per unit, see `derivatives`; values are in loss per squared unit.
        chunk: images in one pass; (classes - 1) * pixels numbers are held for each.

    Returns:
        Vectors [B, k, C, H, W]; residuals are those of the small matrix (rounding); products = classes - 1.

    Raises:
        ValueError: k is out of range, chunk is below 1, and see `derivatives.graph_of`.
        FloatingPointError: the model answers NaN or infinity.
    """
    return _joined([_exact(model, x[start : start + chunk], k, scale) for start in starts(len(x), chunk)])


def lanczos_curvature(
    model: Model,
    x: Tensor,
    y: Tensor | None = None,
    k: int = 1,
    *,
    steps: int = 40,
    tolerance: float = 1e-3,
    which: Which = "magnitude",
    seed: int = 0,
    first: int = 0,
    scale: Scale = 1.0,
    chunk: int = 64,
) -> Eigenpairs:
    """Leading eigenpairs for any network that is twice differentiable, by Hessian-vector products (`lanczos`).

    Args:
        model: see `exact_curvature`.
        x: images [B, C, H, W].
        y: classes [B]; None for those that are predicted, as the papers did.
        k: pairs.
        steps: most products; each costs about two gradients.
        tolerance: see `lanczos`.
        which: the largest by "magnitude", or the "algebraic" largest.
        seed: of the start vectors, each of which depends on (seed, its image's number) only.
        first: number of the first image.
        scale: pixels per unit, see `derivatives`; values are in loss per squared unit.
        chunk: images in one pass; `steps` vectors of their size are held.

    Returns:
        Vectors [B, k, C, H, W]; `converged()` says of which pairs it is known.

    Raises:
        ValueError: see `lanczos` and `derivatives.graph_of`.
        FloatingPointError: the model answers NaN or infinity.
    """
    solve = partial(lanczos, k=k, steps=steps, tolerance=tolerance, which=which)
    return _by_products(model, x, y, solve, normal_like, seed=seed, first=first, scale=scale, chunk=chunk)


def power_curvature(
    model: Model,
    x: Tensor,
    y: Tensor | None = None,
    k: int = 1,
    *,
    steps: int = 20,
    tolerance: float = 1e-4,
    seed: int = 0,
    first: int = 0,
    scale: Scale = 1.0,
    chunk: int = 64,
) -> Eigenpairs:
    """The papers' way (`power_iteration` from a start in [0, 1)), but for many images at once.

    Their code takes images behind the normalisation: pass `normalisation_scale(model)` as `scale` for their numbers.
    Arguments and errors as in `lanczos_curvature`, but for steps and tolerance, which see in `power_iteration`.
    """
    solve = partial(power_iteration, k=k, steps=steps, tolerance=tolerance)
    return _by_products(model, x, y, solve, uniform_like, seed=seed, first=first, scale=scale, chunk=chunk)


def second_order_rest(
    model: Model, x: Tensor, y: Tensor | None = None, *, seed: int = 0, first: int = 0, scale: Scale = 1.0
) -> Tensor:
    """What `exact_curvature` misses: ||(H - J^T (diag p - p p^T) J) v|| / ||H v|| for a random v, image by image.

    H v comes from differentiating twice. Rounding alone gives 1e-6 to 1e-4 in float32 and 1e-14 in float64, much less
    than a network that is not piecewise linear; 0 where both vanish.

    Args:
        model: see `exact_curvature`.
        x: a sample of images [B, C, H, W], all in one pass and, of a random model, at one draw.
        y: classes [B]; None for those that are predicted.
        seed: of the random vectors.
        first: number of the first image.
        scale: pixels per unit, see `derivatives`.

    Returns:
        [B], float64.

    Raises:
        ValueError: see `derivatives.graph_of` and `checked_classes`.
        FloatingPointError: the model answers NaN or infinity.
    """
    vectors = _vectors(x, seed, first, normal_like)
    with graph_of(model, x, scale) as graph:
        product = _hessian_product(graph, y)(vectors)
        differences, factor = _differences(graph)
        inner = torch.einsum("bmn,bn->bm", differences.double(), vectors.double())
        outer = torch.einsum("bcm,bcl,bl->bm", factor, factor, inner)
        rest = product - torch.einsum("bm,bmn->bn", outer, differences.double())
    return rest.norm(dim=1) / product.double().norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)


def _exact(model: Model, x: Tensor, k: int, scale: Scale) -> Eigenpairs:
    with graph_of(model, x, scale) as graph:
        classes = graph.logits.shape[1]
        if not 1 <= k < classes:
            raise ValueError(f"k must lie in 1 to {classes - 1}, one less than the classes, got {k}")
        differences, factor = _differences(graph)
    blocks = torch.split(differences, _BLOCK, 2)
    gram = torch.stack([block.double() @ block.double().mT for block in blocks]).sum(0)
    # With W = factor @ differences the matrix is W^T W, and its eigenvalues are those of the small W W^T.
    small = factor @ gram @ factor.mT
    values, vectors = (part[..., -k:].flip(-1) for part in torch.linalg.eigh(small))
    residuals = (small @ vectors - values[:, None] * vectors).norm(dim=1)
    weights = F.normalize(vectors.mT @ factor, dim=2, eps=torch.finfo(torch.float64).tiny)
    large = F.normalize(weights.to(x.dtype) @ differences, dim=2)
    counts = torch.full((len(x),), classes - 1, device=x.device)
    return Eigenpairs(values.clamp_min(0), large.reshape(len(x), k, *x.shape[1:]), residuals, counts)


def _differences(graph: Graph) -> tuple[Tensor, Tensor]:
    """Gradients [B, classes - 1, N] of (logit - largest logit), and a matrix F [B, classes, classes - 1] in float64.

    J^T (diag p - p p^T) J is the covariance of the logits' gradients under p, so only their differences matter: with D
    the differences it is (F D)^T (F D), row c of F D being sqrt(p_c) * (D_c - mean of D under p). Nothing in it is a
    difference of large numbers when one class has nearly all of p.
    """
    probs, order = graph.logits.detach().softmax(1).sort(1, descending=True)
    onehot = F.one_hot(order, order.shape[1]).to(probs.dtype)
    cotangents = onehot[:, 1:] - onehot[:, :1]
    differences = torch.stack(list(pull_back(graph, cotangents.unbind(1))), 1).flatten(2)
    own = torch.eye(order.shape[1], dtype=probs.dtype, device=probs.device)[:, 1:]
    return differences, probs.sqrt()[:, :, None] * (own - probs[:, None, 1:])


def _by_products(
    model: Model,
    x: Tensor,
    y: Tensor | None,
    solve: Callable[[Operator, Tensor], Eigenpairs],
    draw: Callable[[Tensor], Tensor],
    *,
    seed: int,
    first: int,
    scale: Scale,
    chunk: int,
) -> Eigenpairs:
    if y is not None and len(y) != len(x):
        raise ValueError(f"need a class per image, got {len(y)} for {len(x)} images")
    parts = []
    for start in starts(len(x), chunk):
        images, of = x[start : start + chunk], None if y is None else y[start : start + chunk]
        vectors = _vectors(images, seed, first + start, draw)
        with graph_of(model, images, scale) as graph:
            parts.append(solve(_hessian_product(graph, of), vectors))
    found = _joined(parts)
    return found._replace(vectors=found.vectors.reshape(len(x), -1, *x.shape[1:]))


def _hessian_product(graph: Graph, y: Tensor | None) -> Operator:
    classes = graph.logits.argmax(1) if y is None else checked_classes(y, *graph.logits.shape)
    (gradient,) = torch.autograd.grad(cross_entropy(graph.logits, classes).sum(), graph.step, create_graph=True)

    def product(vectors: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(gradient, graph.step, vectors.view_as(gradient), retain_graph=True)
        return result.flatten(1)

    return product


def _vectors(x: Tensor, seed: int, first: int, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """One vector [N] per image, its number naming the draw."""
    found = []
    with torch.inference_mode(False):
        for index in range(first, first + len(x)):
            with drawing_from(Stream.named(seed, "curvature", index=index)):
                found.append(draw(torch.empty_like(x[0]).flatten()))
        return torch.stack(found) if found else torch.empty(x.flatten(1).shape)


def _joined(parts: list[Eigenpairs]) -> Eigenpairs:
    if not parts:
        raise ValueError("need at least 1 image, got 0")
    return Eigenpairs(*(torch.cat(part) for part in zip(*parts, strict=True)))
