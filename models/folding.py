"""BatchNorm folding in evaluation: the same function of the image in less time, for attacks.

In evaluation mode BatchNorm is an affine map per channel, which can be multiplied into the convolution in
front of it (Jacob et al. 2018, arXiv:1712.05877, section 3.2): it then passes over weights, not activations.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]

# For each network its modules when it was traced (not itself: that would keep it alive), and the pairs found.
_traced: WeakKeyDictionary[nn.Module, tuple[list[nn.Module], list[Pair]]] = WeakKeyDictionary()


@contextlib.contextmanager
def folded_batchnorm(network: nn.Module) -> Iterator[None]:
    """Fold each BatchNorm2d in evaluation mode into the Conv2d that feeds it, until the block ends.

    Logits and gradients, those of parameters included, stay the same up to rounding. Nothing is copied and no
    tensor changes: the two modules get another `forward`, which reads parameters and statistics once per
    call. So hooks in front of the convolution still run, and a random weight (a parametrization) is drawn
    once per call.

    What cannot be folded is left alone: BatchNorm in training mode or without running statistics, hooks
    between the two modules, subclasses with a `forward` of their own, a whole network that `torch.fx` cannot
    trace.

    Args:
        network: what will be called, or a module around it. Inside the block do not call its convolutions
            one by one, and change no modes or hooks.
    """
    pairs = [pair for pair in _pairs(network) if _foldable(*pair)]
    try:
        for conv, bn in pairs:
            vars(conv)["forward"] = partial(_folded, conv, bn)
            vars(bn)["forward"] = _identity
        yield
    finally:
        for conv, bn in pairs:
            vars(conv).pop("forward", None)
            vars(bn).pop("forward", None)


def _folded(conv: nn.Conv2d, bn: nn.BatchNorm2d, input: Tensor) -> Tensor:
    """Return bn(conv(input)), with parameters read in the same order as there: they may be random draws."""
    weight, bias = conv.weight, conv.bias
    gain, offset = bn.weight, bn.bias
    mean, var = bn.running_mean, bn.running_var
    assert mean is not None, "see _foldable"
    assert var is not None, "see _foldable"
    scale = torch.rsqrt(var + bn.eps)
    if gain is not None:
        scale = scale * gain
    shift = scale * (-mean if bias is None else bias - mean)
    if offset is not None:
        shift = shift + offset
    return conv._conv_forward(input, weight * scale[:, None, None, None], shift)


def _identity(input: Tensor) -> Tensor:
    return input


def _foldable(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> bool:
    """Tell whether, as of now, nothing but the plain arithmetic of the two happens in their calls."""
    between = conv._forward_hooks, bn._forward_pre_hooks
    backward = conv._backward_hooks, conv._backward_pre_hooks, bn._backward_hooks, bn._backward_pre_hooks
    own = type(conv).forward, type(conv)._conv_forward, type(bn).forward
    return (
        not bn.training
        and bn.running_mean is not None
        and not any(between + backward)
        and own == (nn.Conv2d.forward, nn.Conv2d._conv_forward, nn.BatchNorm2d.forward)
        and "forward" not in vars(conv)  # folded already, by a block around this one
        and "forward" not in vars(bn)
    )


def _pairs(network: nn.Module) -> list[Pair]:
    """Return the pairs in `network`, which is traced the first time and when its modules have changed."""
    modules = list(network.modules())[1:]
    if network not in _traced or _traced[network][0] != modules:
        _traced[network] = modules, _find_pairs(network)
    return _traced[network][1]


def _find_pairs(network: nn.Module) -> list[Pair]:
    """Find convolutions that feed one BatchNorm only and are all that feeds it, in every call of the two."""
    graph = fx.Graph()
    # `forward` is anyone's code and runs on placeholders: it may raise anything.
    with contextlib.suppress(Exception):
        graph = _trace(network)
    feeds: defaultdict[object, set[object]] = defaultdict(set)
    fed_by: defaultdict[object, set[object]] = defaultdict(set)
    for node in graph.nodes:
        for user in node.users:
            feeds[_place(node)].add(_place(user))
            fed_by[_place(user)].add(_place(node))
    convs = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    return [
        (convs[conv], norms[bn])
        for conv in convs
        for bn in feeds[conv] & norms.keys()
        if feeds[conv] == {bn} and fed_by[bn] == {conv}
    ]


def _place(node: fx.Node) -> object:
    """Return the name of the module that `node` calls (all calls of it are one place), or else the node."""
    return node.target if node.op == "call_module" else node


def _trace(network: nn.Module) -> fx.Graph:
    """Trace `network` and leave no mark: no attribute that `forward` sets, no step of the random stream."""
    before = [(vars(module), dict(vars(module))) for module in network.modules()]
    try:
        with torch.random.fork_rng(devices=[]):
            return _Tracer().trace(network)
    finally:
        for attributes, values in before:
            attributes.clear()
            attributes.update(values)


class _Tracer(fx.Tracer):
    """Units are childless modules, and Conv2d and BatchNorm2d even with noise or parametrizations inside."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        unit = isinstance(m, nn.Conv2d | nn.BatchNorm2d) or next(m.children(), None) is None
        return unit or super().is_leaf_module(m, module_qualified_name)
