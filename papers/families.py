"""The papers' six channels as families of one parameter, in the papers' own units."""

from collections.abc import Callable
from functools import partial

from defenses import Channel, ColourDepth, FFTCompression, PapersGauss, PapersLaplace, PapersUniform, SVDCompression

# Of images in [0, 1], the range that the papers declared for their normalised ones: 5.5 times 0.2009, the mean over
# colours of the standard deviation that they divided CIFAR-10's by. ImageNet: 4.758 times 0.226.
CIFAR_RANGE = 1.105
NOISES = ("Gauss", "Uniform", "Laplace")
_BITS = 8  # of a colour in an image file

_COMPRESSION: dict[str, Callable[[float], Channel]] = {
    "FC": partial(FFTCompression, mask="corner_disks"),
    "SVD": SVDCompression,
    "CD": lambda bits: ColourDepth(int(bits)),
}
_NOISE: dict[str, Callable[[float, float], Channel]] = {
    "Gauss": PapersGauss,
    "Uniform": PapersUniform,
    "Laplace": PapersLaplace,
}


def channel(family: str, parameter: float, bounds_range: float = CIFAR_RANGE) -> Channel:
    """One of a family.

    Args:
        family: FC, SVD, CD, Gauss, Uniform or Laplace.
        parameter: left out in percent (FC, SVD), bits of a colour (CD), or the papers' sigma.
        bounds_range: of the noise, see `PapersGauss`.

    Raises:
        ValueError: there is no such family.
    """
    if family in _COMPRESSION:
        return _COMPRESSION[family](parameter)
    if family in _NOISE:
        return _NOISE[family](parameter, bounds_range)
    raise ValueError(f"no family of channels is called {family}; known: {', '.join([*_COMPRESSION, *_NOISE])}")


def compression(family: str, parameter: float) -> float:
    """The parameter as the papers' axis has it: bits of a colour as the percentage that is left out of eight."""
    return 100 * (1 - parameter / _BITS) if family == "CD" else parameter


def axis_of(family: str) -> str:
    """What an axis of the family's parameters is called."""
    return "noise (the papers' epsilon)" if family in NOISES else "compression (%)"
