"""advertorch 0.2.3 (https://github.com/BorealisAI/advertorch) on a PyTorch that it was not written for."""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch
import torch.autograd.gradcheck


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


def _zero_gradients(x: torch.Tensor) -> None:
    if x.grad is not None:
        x.grad.detach_().zero_()
