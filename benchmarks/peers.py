"""Attacks of other libraries behind one signature, (model, x, y, **settings) -> x_adv in [0, 1], to compare ours with.

They live in an environment of their own, with the PyTorch of requirements.lock:

    make bench-install
    .venv-bench/bin/python -m pytest tests/benchmarks

foolbox 3.3.4, torchattacks 3.5.1, advertorch 0.2.3, pyautoattack 0.2.0 (the AutoAttack authors' code as a package),
adv-lib 0.2.8. requirements-bench-nodeps.in says why two of them are installed without what they ask for.

All see the same model in eval mode and the same images, and take as many gradients for the same settings (APGD: one
more than `steps`, at its start). The weights keep `requires_grad`, as in anybody's hands: foolbox, advertorch and
torchattacks' C&W call `.backward()` and so compute the weights' gradients too, which costs time, not strength.
Afterwards modes and random state are as before and gradients are None. Printing and warnings are off; rounding beyond
[0, 1] is clipped. Docstrings below say where libraries mean different things by one name; where a default is no choice
but an oversight, it is set to what the others do.
"""

import io
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from attacks.advertorch import advertorch_attacks
from attacks.base import evaluating

Peer = Callable[..., Tensor]


def _peer(attack: Peer) -> Peer:
    @wraps(attack)
    def run(model: nn.Module, x: Tensor, y: Tensor, *, seed: int | None = None, **settings: Any) -> Tensor:
        drawn = int(torch.randint(2**31, ())) if seed is None else seed
        try:
            with evaluating(model), _quiet(), _seeded(drawn, x.device):
                x_adv = attack(model, x.contiguous(), y, **settings)  # some use `view`, which channels_last refuses
        finally:
            model.zero_grad(set_to_none=True)
        return x_adv.detach().clamp(0, 1)

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    logger, trace = logging.getLogger("auto-attack"), sys.gettrace()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        sys.settrace(trace)  # pyautoattack switches tracing off, and with it debuggers and coverage


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """`torch.initial_seed()` inside; torchattacks and pyautoattack seed the global generator themselves."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _classes(model: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        answer: Tensor = model(x[:1])
    return answer.shape[-1]


def _foolbox(attack: Any, model: nn.Module, x: Tensor, y: Tensor, eps: float | None = None) -> Tensor:
    from foolbox import Misclassification, PyTorchModel

    shown = PyTorchModel(model, bounds=(0, 1), device=x.device)
    clipped: Tensor = attack(shown, x, Misclassification(y), epsilons=eps)[1]
    return clipped


def _adv_lib(name: str) -> Any:
    # Its attacks import the plot server's client whether or not they plot.
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))
    import adv_lib.attacks

    return getattr(adv_lib.attacks, name)


@_peer
def pgd_foolbox(model: nn.Module, x: Tensor, y: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    """LinfPGD. All three PGD start uniformly in the ball, return the last iterate and never stop early."""
    from foolbox.attacks import LinfPGD

    return _foolbox(LinfPGD(abs_stepsize=step_size, steps=steps, random_start=True), model, x, y, eps)


@_peer
def pgd_torchattacks(model: nn.Module, x: Tensor, y: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    """PGD. Its loss is the batch's mean, so tiny gradients become 0 sooner than under a sum."""
    import torchattacks

    found: Tensor = torchattacks.PGD(model, eps=eps, alpha=step_size, steps=steps, random_start=True)(x, y)
    return found


@_peer
def pgd_advertorch(model: nn.Module, x: Tensor, y: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    """LinfPGDAttack."""
    attack = advertorch_attacks().LinfPGDAttack(model, eps=eps, nb_iter=steps, eps_iter=step_size, rand_init=True)
    found: Tensor = attack.perturb(x, y)
    return found


@_peer
def apgd_torchattacks(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, loss: str) -> Tensor:
    """APGD, `loss` "ce" or "dlr"; Croce and Hein's rule halves the step.

    Images that are wrong at the start are left out and come back as x, as do those that are not broken. A broken image
    comes back as its last wrong iterate; none leaves the batch when it breaks.
    """
    import torchattacks

    found: Tensor = torchattacks.APGD(model, eps=eps, steps=steps, loss=loss, seed=torch.initial_seed())(x, y)
    return found


@_peer
def apgd_pyautoattack(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, loss: str) -> Tensor:
    """APGDAttack: the original, in everything like torchattacks' APGD."""
    from pyautoattack.autopgd_base import APGDAttack

    attack = APGDAttack(model, n_iter=steps, eps=eps, loss=loss, seed=torch.initial_seed(), device=x.device)
    found: Tensor = attack.perturb(x, y)
    return found


@_peer
def apgd_adv_lib(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, loss: str) -> Tensor:
    """apgd: wrong images are attacked too; those that are not broken come back as x.

    Two slips that cost strength: an image that errs at the random start only comes back as x, and the loss of the last
    checkpoint is an alias of the best one, so that the step is halved at every other checkpoint whatever the progress.
    """
    found: Tensor = _adv_lib("apgd")(model, x, y, eps, float("inf"), n_iter=steps, loss_function=loss)
    return found


@_peer
def autoattack_torchattacks(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int = 100, queries: int = 5000
) -> Tensor:
    """AutoAttack, standard: APGD-CE, targeted APGD-DLR, targeted FAB, Square; an image leaves when a part broke it.

    Its own default of 10 steps for the first three parts is replaced by the paper's 100. Robust images come back as x.
    """
    import torchattacks

    attack = torchattacks.AutoAttack(model, eps=eps, n_classes=_classes(model, x), seed=torch.initial_seed())
    for part in attack._autoattack.attacks:
        setattr(part, *(("n_queries", queries) if part.attack == "Square" else ("steps", steps)))
    found: Tensor = attack(x, y)
    return found


@_peer
def autoattack_pyautoattack(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int = 100, queries: int = 5000
) -> Tensor:
    """AutoAttack, standard: the original, in the same order; robust images come back as x."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm="Linf", eps=eps, version="standard", seed=torch.initial_seed(), device=x.device)
    for part in (attack.apgd, attack.apgd_targeted):
        # The constructor derived the checkpoints (0.22, then 0.03 less each, at least 0.06 of the steps) from 100.
        part.n_iter = steps
        part.n_iter_2, part.size_decr, part.n_iter_min = (max(int(f * steps), 1) for f in (0.22, 0.03, 0.06))
    attack.fab.n_iter, attack.square.n_queries = steps, queries
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, _classes(model, x) - 1)
    found: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
    return found


@_peer
def cw_foolbox(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    steps: int,
    search_steps: int,
    step_size: float = 0.01,
    c: float = 1e-3,
    abort_early: bool = True,
) -> Tensor:
    """L2CarliniWagnerAttack: `search_steps` constants per image from `c` on (times 10 until it breaks, then halving).

    `abort_early` ends a search step when the *batch's* summed loss stood still for a tenth of the steps. Of failures
    it returns all-zero images; here they come back as x.
    """
    from foolbox.attacks import L2CarliniWagnerAttack

    found = _foolbox(L2CarliniWagnerAttack(search_steps, steps, step_size, 0, c, abort_early), model, x, y)
    return torch.where((found == 0).all(3).all(2).all(1)[:, None, None, None], x, found)


@_peer
def cw_advertorch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    steps: int,
    search_steps: int,
    step_size: float = 0.01,
    c: float = 1e-3,
    abort_early: bool = True,
) -> Tensor:
    """CarliniWagnerL2Attack: as foolbox's; failures come back as x."""
    attack = advertorch_attacks().CarliniWagnerL2Attack(
        model,
        _classes(model, x),
        learning_rate=step_size,
        binary_search_steps=search_steps,
        max_iterations=steps,
        abort_early=abort_early,
        initial_const=c,
    )
    found: Tensor = attack.perturb(x, y)
    return found


@_peer
def cw_adv_lib(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    steps: int,
    search_steps: int,
    step_size: float = 0.01,
    c: float = 1e-3,
    abort_early: bool = True,
) -> Tensor:
    """carlini_wagner_l2: a search step ends only when *every* image stood still; failures come back as x."""
    found: Tensor = _adv_lib("carlini_wagner_l2")(
        model,
        x,
        y,
        learning_rate=step_size,
        initial_const=c,
        binary_search_steps=search_steps,
        max_iterations=steps,
        abort_early=abort_early and steps >= 10,  # below it divides by 0
    )
    return found


@_peer
def cw_torchattacks(
    model: nn.Module, x: Tensor, y: Tensor, steps: int, step_size: float = 0.01, c: float = 1.0
) -> Tensor:
    """CW: one constant for all images, no search, so not comparable with the others; failures come back as x.

    It stops the whole batch when the summed loss grew over a tenth of the steps. Pixels of 0 or 1 cannot move (atanh is
    infinite there), and the label's own slot counts as a logit of 0, so adding a constant to all logits matters.
    """
    import torchattacks

    found: Tensor = torchattacks.CW(model, c=c, steps=steps, lr=step_size)(x, y)
    return found


@_peer
def ddn_foolbox(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """DDNAttack, which never rounds to 256 levels. In all three failures come back as x."""
    from foolbox.attacks import DDNAttack

    return _foolbox(DDNAttack(steps=steps), model, x, y)


@_peer
def ddn_advertorch(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """DDNL2Attack, rounding off as in foolbox; its cosine is one step ahead, its norm has no upper bound."""
    found: Tensor = advertorch_attacks().DDNL2Attack(model, nb_iter=steps, quantize=False).perturb(x, y)
    return found


@_peer
def ddn_adv_lib(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """Function ddn, the authors' own, rounding off as in foolbox."""
    found: Tensor = _adv_lib("ddn")(model, x, y, steps=steps, levels=None)
    return found


@_peer
def fmn_foolbox(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """L2FMNAttack: failures come back as x. Its L2 projection multiplies by norm / norm: it never shortens anything."""
    from foolbox.attacks import L2FMNAttack

    return _foolbox(L2FMNAttack(steps=steps), model, x, y)


@_peer
def fmn_adv_lib(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """Function fmn: failures come back as x. Its projection also lengthens: a step ends on the sphere, not within."""
    found: Tensor = _adv_lib("fmn")(model, x, y, 2, steps=steps)
    return found


# Kind of attack -> library -> function. Within a kind the settings are the same. All also take `seed`; without it one
# is drawn from the global generator, so that `torch.manual_seed` before the call decides.
PEERS: dict[str, dict[str, Peer]] = {
    "PGD": {"foolbox": pgd_foolbox, "torchattacks": pgd_torchattacks, "advertorch": pgd_advertorch},
    "APGD": {"torchattacks": apgd_torchattacks, "pyautoattack": apgd_pyautoattack, "adv-lib": apgd_adv_lib},
    "AutoAttack": {"torchattacks": autoattack_torchattacks, "pyautoattack": autoattack_pyautoattack},
    "C&W": {"foolbox": cw_foolbox, "advertorch": cw_advertorch, "adv-lib": cw_adv_lib},
    "C&W, fixed c": {"torchattacks": cw_torchattacks},
    "DDN": {"foolbox": ddn_foolbox, "advertorch": ddn_advertorch, "adv-lib": ddn_adv_lib},
    "FMN": {"foolbox": fmn_foolbox, "adv-lib": fmn_adv_lib},
}
