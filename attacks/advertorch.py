"""advertorch 0.2.3 (https://github.com/BorealisAI/advertorch) as our attacks, on a PyTorch it was not written for."""

import importlib
import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.autograd.gradcheck
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from attacks.balls import Ball
from attacks.base import Attack, Log, Trace
from attacks.goal import Goal, draws_of
from attacks.shown import Shown
from defenses.randomness import is_random, uniform_like

_OURS = ("predict", "num_classes", "targeted", "loss_fn")  # arguments of its constructors that are filled in here
_TARGETS_ONLY = ("JacobianSaliencyMapAttack", "JSMA")
# What is wrong with a class whatever is asked of it; more in `_warn`. Measured with version 0.2.3.
_FAULTS = {
    "ChooseBestAttack": "has all-zero images for what no part improves: for all that have a target; use restarts",
    "L1PGDAttack": "moves one value per step, by its defaults 0.4 of the 10 that it may; use PGD in our L1 ball",
}
_LUCKY = "stops at a first draw that errs, and most others will not; use our minimal-norm attacks with draws"
_UNTARGETED_LBFGS = "without a target climbs the wrong way and returns x; use attacks.LBFGS, or give targets"
# Beginnings of warnings about advertorch's own code, and about SciPy's options that it uses.
_KNOWN = (
    "This overload of add_ is deprecated",
    r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`",
    "scipy.optimize: The `disp` and `iprint` options",
    "Default grid_sample and affine_grid behavior has changed",
)


def advertorch_attacks() -> ModuleType:
    """The module `advertorch.attacks`.

    advertorch imports `zero_gradients`, which PyTorch 1.9 removed; it is put back where advertorch looks for it. Its
    attacks call `.backward()`: they fill the weights' gradients and neither restore modes nor work in inference mode.

    Raises:
        ImportError: advertorch is not installed.
    """
    gradcheck: Any = sys.modules["torch.autograd.gradcheck"]
    if not hasattr(gradcheck, "zero_gradients"):
        gradcheck.zero_gradients = _zero_gradients
    return importlib.import_module("advertorch.attacks")


def _zero_gradients(x: Tensor) -> None:
    if x.grad is not None:
        x.grad.detach_().zero_()


class Arguments(Mapping[str, Any]):
    """Settings by name, which nobody can change: they print like a dict and can be hashed."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)

    def __getitem__(self, name: str) -> Any:
        return self._settings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def __hash__(self) -> int:
        return hash(frozenset(self._settings))  # values may be lists

    def __repr__(self) -> str:
        return repr(self._settings)


@dataclass(frozen=True)
class Advertorch(Attack):
    """An attack class of advertorch, by name. Classes known to be wrong warn and say what to use instead.

    It runs in float32 and sees a function of the images only, so nothing happens to weights or their gradients. Of the
    draws of a random model (EOT) it sees the mean log-probabilities, as it knows but one answer: its cross entropy is
    then the mean one, exactly; margins are means over draws with one runner-up for all of them; its decisions are those
    of the mean. All draws of an answer, votes too, have a gradient and lie in memory at once. Images outside [0, 1]
    are clipped; in the place of NaN and of all-zero images, which some classes return where they fail, x is returned.

    Queries are those of the batch divided by its size. L-BFGS, FAB, SPSA's samples, early aborts: here results may
    depend on batch mates. JSMA, which knows targets only, is given the runner-up where there is none.

    Args:
        name: e.g. LinfPGDAttack.
        arguments: of its constructor, but for the model, the number of classes, the loss and `targeted`. The attacks in
            `base_adversaries` of ChooseBestAttack are mappings with `name` and `arguments`.
        ball: gives the radius in the place of `eps`, and what leaves it is projected; for attacks of such a ball only.

    Raises:
        ValueError: there is no such class or argument, the class refuses it or cannot run behind this signature.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ball: Ball | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", Arguments(self.arguments))
        if self.ball is not None:
            _check_ball(self.name, self.arguments, self.ball)
        try:
            with _quiet():
                _made(self.name, self._settings(), nn.Identity(), 2, False)
        except (AssertionError, TypeError, AttributeError) as error:
            reason = str(error) or "an assertion failed"
            raise ValueError(f"advertorch's {self.name} refuses {self.arguments}: {reason}") from error

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self._settings().items())
        return f"advertorch {self.name} ({settings})" if settings else f"advertorch {self.name}"

    def _settings(self) -> dict[str, Any]:
        return dict(self.arguments) | ({} if self.ball is None else {"eps": self.ball.eps})

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`.

        Raises:
            ValueError: a target is given to an attack that knows none.
        """
        predict, whole = _Predict(model, x), x.float().contiguous()
        first = predict(whole)
        _warn(self.name, goal, is_random(model.model))
        targeted = goal.target is not None
        label = goal.runner_up(first) if self.name in _TARGETS_ONLY and not targeted else goal.classes
        attack = _made(self.name, self._settings(), predict, first.shape[-1], targeted)
        if targeted and not attack.targeted:
            raise ValueError(f"advertorch's {self.name} knows no targets")
        if predict.several:
            _average_loss(attack)
        if hasattr(attack, "max_pixels"):  # looks for more pixels than a small image has
            attack.max_pixels = min(attack.max_pixels, x[0, 0].numel())
        with _quiet(), _own_randomness(x.device):
            found = attack.perturb(whole.clone(), label.clone()).detach()
        model.check()  # before NaN is found to be the fault of advertorch
        return predict.log(goal).trace(self._accepted(found, whole, x))

    def _accepted(self, found: Tensor, whole: Tensor, x: Tensor) -> Tensor:
        black = (found == 0).flatten(1).all(1) & (whole != 0).flatten(1).any(1)
        fake = black | found.isnan().flatten(1).any(1)
        if fake.any():
            text = "returned all-zero images or NaN for images that it did not break; they stay as they were"
            warnings.warn(f"advertorch's {self.name} {text}", UserWarning, stacklevel=4)
        changed = ~fake.view(-1, 1, 1, 1) & (found != whole)  # rounding to float32 is no change
        x_adv = torch.where(changed, found.clamp(0, 1).to(x.dtype), x)
        x_adv = x_adv if self.ball is None else self.ball.project(x_adv, x)
        return torch.empty_like(x).copy_(x_adv)  # in the memory format of x


class _Predict:
    """What advertorch takes for the model: one answer, whose `.backward()` ends at the images."""

    def __init__(self, model: Shown, x: Tensor) -> None:
        self.model, self.x, self.several = model, x, False
        self.asked = 0
        self.zero_gradient = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] -> logits [n, classes], in float32."""
        if not (torch.is_grad_enabled() and images.requires_grad):
            with torch.no_grad():
                return self.answer(images)
        logits: Tensor = _Isolated.apply(images, self)
        return logits

    def answer(self, images: Tensor) -> Tensor:
        """The same, with the graph of the model's own operations."""
        logits = self.model(images.to(self.x.dtype))
        self.asked += len(images) * draws_of(logits)
        self.several = logits.dim() > 2
        if self.several:
            logits = logits.log_softmax(-1).view(-1, *logits.shape[-2:]).mean(0)
        return logits.float()

    def log(self, goal: Goal) -> Log:
        """What was asked; whether an answer on the way was as wanted, advertorch does not tell."""
        log = Log(0, self.x, goal)
        log.queries += -(-self.asked // len(self.x))
        log.zero_gradient |= self.zero_gradient
        return log


class _Isolated(torch.autograd.Function):
    """A graph within the graph: no `.backward()` reaches a weight, its hooks or the reduction over ranks."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, predict: _Predict) -> Tensor:
        with torch.enable_grad():
            ctx.images, ctx.predict = images.detach().requires_grad_(), predict
            ctx.logits = predict.answer(ctx.images)
        return ctx.logits.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        gradient = None
        if ctx.logits.requires_grad:
            # FAB and JSMA come back for one class after the other.
            (gradient,) = torch.autograd.grad(ctx.logits, ctx.images, outer, retain_graph=True, allow_unused=True)
        gradient = torch.zeros_like(ctx.images) if gradient is None else gradient
        if len(gradient) == len(ctx.predict.zero_gradient):
            vanished = (gradient.abs().amax((1, 2, 3)) == 0) & (outer.abs().amax(1) > 0)
            ctx.predict.zero_gradient |= vanished
        return gradient, None


def _classes() -> dict[str, type]:
    module = advertorch_attacks()
    exported = {name: thing for name, thing in vars(module).items() if inspect.isclass(thing)}
    return {name: kind for name, kind in exported.items() if issubclass(kind, module.Attack) and name != "Attack"}


def _made(name: str, arguments: Mapping[str, Any], predict: Any, classes: int, targeted: bool) -> Any:
    """The attack of advertorch.

    Raises:
        ValueError: no such name, or names of arguments that it does not take or lacks.
    """
    known = _classes()
    if name not in known:
        raise ValueError(f"advertorch has no attack {name}; it has {', '.join(sorted(known))}")
    if name == "FastFeatureAttack":
        raise ValueError("FastFeatureAttack imitates a second image, which an attack is not given here")
    taken = inspect.signature(known[name]).parameters
    settings = dict(arguments)
    free = [parameter for parameter in taken.values() if parameter.name not in _OURS]
    needed = [parameter.name for parameter in free if parameter.default is parameter.empty]
    if set(settings) - {parameter.name for parameter in free} or set(needed) - set(settings):
        given = ", ".join(settings) or "none"
        takes = ", ".join(parameter.name for parameter in free)
        raise ValueError(f"advertorch's {name} takes {takes} (needs: {', '.join(needed) or 'none'}); got {given}")
    if "base_adversaries" in taken:
        parts = settings["base_adversaries"]
        settings["base_adversaries"] = [
            _made(part["name"], part.get("arguments", {}), predict, classes, targeted) for part in parts
        ]
    ours = {"predict": predict, "num_classes": classes, "targeted": targeted}
    return known[name](**{key: value for key, value in ours.items() if key in taken}, **settings)


def _check_ball(name: str, arguments: Mapping[str, Any], ball: Ball) -> None:
    others = {"GradientSignAttack": "Linf", "FGSM": "Linf", "GradientAttack": "L2", "FGM": "L2"}
    norm = others.get(name, name[: 4 if name.startswith("Linf") else 2])
    if "FAB" in name or norm != type(ball).__name__ or "eps" in arguments:
        given = f"{type(ball).__name__} and {arguments}"
        raise ValueError(f"a ball takes the place of eps in an attack of its norm; {name} got {given}")


def _average_loss(attack: Any) -> None:
    """Mean log-probabilities do not sum to 1: cross entropy would normalise them again and be less than the mean."""
    for part in getattr(attack, "base_adversaries", []):
        _average_loss(part)
    loss = getattr(attack, "loss_fn", None)
    if isinstance(loss, nn.CrossEntropyLoss):
        attack.loss_fn = nn.NLLLoss(reduction=loss.reduction)


def _warn(name: str, goal: Goal, random: bool) -> None:
    faults = [_FAULTS[name]] if name in _FAULTS else []
    if name == "LBFGSAttack" and goal.target is None:
        faults.append(_UNTARGETED_LBFGS)
    if random and ("FAB" in name or "eps" not in inspect.signature(_classes()[name]).parameters):
        faults.append(_LUCKY)
    for fault in faults:
        warnings.warn(f"advertorch's {name} {fault}", UserWarning, stacklevel=4)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings about advertorch's own code."""
    with warnings.catch_warnings():
        for message in _KNOWN:
            warnings.filterwarnings("ignore", message)
        yield


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Global generators, from which advertorch draws, seeded from our stream; afterwards they are as before."""
    seed = int(uniform_like(torch.empty((), dtype=torch.float64)) * 2**32)
    before = np.random.get_state()  # `comply_with_foolbox` seeds NumPy's
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
