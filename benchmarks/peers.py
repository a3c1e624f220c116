"""Attacks of other libraries behind one signature, (model, x, y, seed, **settings) -> x_adv, for comparison.

They live in an environment of their own, `make bench-install`: foolbox 3.3.4, torchattacks 3.5.1, advertorch 0.2.3,
pyautoattack 0.2.0 (AutoAttack's authors' code as a package), adv-lib 0.2.8. All get the same images in [0, 1], the same model
in eval mode, and as many gradients; each keeps its other defaults. What differs:

- PGD: all three return the last iterate; a uniform random start in the ball; none stops early.
- APGD: torchattacks and pyautoattack drop broken images from the batch, adv-lib does not; all return a broken iterate.
- C&W: advertorch and foolbox abort a search step when the batch's summed loss stands still; torchattacks has no search for the
  constant (c = 1, one run of all steps) and is left out; adv-lib aborts likewise.
- DDN: foolbox and advertorch do not round to 256 levels here, nor does adv-lib (levels=None).
"""

import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attacks.advertorch import advertorch_attacks

Peer = Callable[..., Tensor]
CLASSES = 10


def _foolbox(attack: Any, model: nn.Module, x: Tensor, y: Tensor, eps: float | None = None) -> Tensor:
    from foolbox import Misclassification, PyTorchModel

    shown = PyTorchModel(model, bounds=(0, 1), device=x.device)
    _, clipped, _ = attack(shown, x.contiguous(), Misclassification(y), epsilons=eps)
    return clipped


def _adv_lib(name: str) -> Any:
    # Its plots need visdom, a server; its attacks do not.
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))
    import adv_lib.attacks

    return getattr(adv_lib.attacks, name)


def pgd_foolbox(model: nn.Module, x: Tensor, y: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    """LinfPGD."""
    from foolbox.attacks import LinfPGD

    return _foolbox(LinfPGD(abs_stepsize=step_size, steps=steps, random_start=True), model, x, y, eps)


def pgd_torchattacks(model: nn.Module, x: Tensor, y: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    """PGD."""
    import torchattacks

    return torchattacks.PGD(model, eps=eps, alpha=step_size, steps=steps, random_start=True)(x, y)


def pgd_advertorch(model: nn.Module, x: Tensor, y: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    """LinfPGDAttack."""
    attack = advertorch_attacks().LinfPGDAttack(model, eps=eps, nb_iter=steps, eps_iter=step_size, rand_init=True)
    return attack.perturb(x, y)


def apgd_torchattacks(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, loss: str, seed: int) -> Tensor:
    """APGD."""
    import torchattacks

    return torchattacks.APGD(model, eps=eps, steps=steps, loss=loss, seed=seed)(x, y)


def apgd_pyautoattack(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, loss: str, seed: int) -> Tensor:
    """APGDAttack."""
    from pyautoattack.autopgd_base import APGDAttack

    attack = APGDAttack(model, n_iter=steps, eps=eps, loss=loss, seed=seed, device=x.device)
    return attack.perturb(x, y)


def apgd_adv_lib(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, loss: str, seed: int) -> Tensor:
    """apgd."""
    torch.manual_seed(seed)
    return _adv_lib("apgd")(model, x, y, eps, float("inf"), n_iter=steps, loss_function=loss)


def autoattack_torchattacks(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """AutoAttack, standard."""
    import torchattacks

    return torchattacks.AutoAttack(model, eps=eps, n_classes=CLASSES, seed=seed)(x, y)


def autoattack_pyautoattack(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """AutoAttack, standard."""
    from pyautoattack import AutoAttack

    found = AutoAttack(model, norm="Linf", eps=eps, version="standard", seed=seed, device=x.device)
    answer = found.run_standard_evaluation(x, y, batch_size=len(x))
    return answer[0] if isinstance(answer, tuple) else answer


def cw_foolbox(model: nn.Module, x: Tensor, y: Tensor, steps: int, search_steps: int) -> Tensor:
    """L2CarliniWagnerAttack."""
    from foolbox.attacks import L2CarliniWagnerAttack

    return _foolbox(L2CarliniWagnerAttack(binary_search_steps=search_steps, steps=steps), model, x, y)


def cw_advertorch(model: nn.Module, x: Tensor, y: Tensor, steps: int, search_steps: int) -> Tensor:
    """CarliniWagnerL2Attack."""
    attack = advertorch_attacks().CarliniWagnerL2Attack(
        model, CLASSES, binary_search_steps=search_steps, max_iterations=steps
    )
    return attack.perturb(x, y)


def cw_adv_lib(model: nn.Module, x: Tensor, y: Tensor, steps: int, search_steps: int) -> Tensor:
    """carlini_wagner_l2."""
    return _adv_lib("carlini_wagner_l2")(model, x, y, binary_search_steps=search_steps, max_iterations=steps)


def ddn_foolbox(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """DDNAttack."""
    from foolbox.attacks import DDNAttack

    return _foolbox(DDNAttack(steps=steps), model, x, y)


def ddn_advertorch(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """DDNL2Attack."""
    return advertorch_attacks().DDNL2Attack(model, nb_iter=steps, quantize=False).perturb(x, y)


def ddn_adv_lib(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """ddn."""
    return _adv_lib("ddn")(model, x, y, steps=steps, levels=None)


def fmn_foolbox(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """L2FMNAttack."""
    from foolbox.attacks import L2FMNAttack

    return _foolbox(L2FMNAttack(steps=steps), model, x, y)


def fmn_adv_lib(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """fmn."""
    return _adv_lib("fmn")(model, x, y, 2, steps=steps)


PEERS: dict[str, dict[str, Peer]] = {
    "PGD": {"foolbox": pgd_foolbox, "torchattacks": pgd_torchattacks, "advertorch": pgd_advertorch},
    "APGD": {"torchattacks": apgd_torchattacks, "pyautoattack": apgd_pyautoattack, "adv-lib": apgd_adv_lib},
    "AutoAttack": {"torchattacks": autoattack_torchattacks, "pyautoattack": autoattack_pyautoattack},
    "C&W": {"foolbox": cw_foolbox, "advertorch": cw_advertorch, "adv-lib": cw_adv_lib},
    "DDN": {"foolbox": ddn_foolbox, "advertorch": ddn_advertorch, "adv-lib": ddn_adv_lib},
    "FMN": {"foolbox": fmn_foolbox, "adv-lib": fmn_adv_lib},
}
