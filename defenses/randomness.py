"""Where every random draw of the project comes from: streams that are named, seeded and never overlap.

A stream is set by a context manager and read by whatever draws (noise layers, random starts of attacks):

    with drawing_from(Stream.named(0, "judge", index=batch)):
        logits = model(x)

Outside of any stream PyTorch's default generators are used, as everywhere else.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor, nn

# PyTorch's CPU generator (Mersenne twister) runs on one thread, and Gaussian noise costs more than the convolution
# behind it. A large draw is therefore split into this many fixed parts, each with a generator of its own. The number
# does not depend on the threads at hand, so neither do the values.
LANES = 8
# (part to be filled, generator or None for PyTorch's own) -> whatever.
Fill = Callable[[Tensor, torch.Generator | None], object]
_PARALLEL_FROM = 1 << 17  # below this many values a thread costs more than it saves
# Draws that are worked on further are so in parts: small ones cost more calls, large ones leave the cache. Measured.
_BLOCK = 200_000
_SEEDS = 1 << 32  # the Mersenne twister is seeded with 32 bits; more would be ignored silently


class Stream:
    """A reproducible source of draws on any device.

    Args:
        seed: any integer; streams whose seeds differ by a multiple of `LANES` (modulo 2^32) share no generator.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed % _SEEDS
        self._generators: dict[tuple[torch.device, int], torch.Generator] = {}

    @classmethod
    def named(cls, *key: str | int, index: int = 0) -> "Stream":
        """The stream number `index` (a step, a batch) of the family `key`; streams of one family never overlap."""
        digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
        return cls(int.from_bytes(digest, "little") + index * LANES)

    def generator(self, device: torch.device, lane: int = 0) -> torch.Generator:
        """The generator of one lane on one device, made at its first use."""
        key = (device, lane)
        if key not in self._generators:
            self._generators[key] = torch.Generator(device).manual_seed((self.seed + lane) % _SEEDS)
        return self._generators[key]


_STREAM: ContextVar[Stream | None] = ContextVar("stream", default=None)
_SILENT: ContextVar[bool] = ContextVar("silent", default=False)
_FROZEN: ContextVar[bool] = ContextVar("frozen", default=False)


@contextmanager
def drawing_from(stream: Stream) -> Iterator[Stream]:
    """Inside, all noise and all random starts come from `stream`; a stream entered again goes on where it was."""
    token = _STREAM.set(stream)
    try:
        yield stream
    finally:
        _STREAM.reset(token)


@contextmanager
def silenced() -> Iterator[None]:
    """Inside, noise layers and noisy weights add nothing. The only way to turn them off: no mode does."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def is_silenced() -> bool:
    """Whether the caller stands inside `silenced()`."""
    return _SILENT.get()


@contextmanager
def frozen(stream: Stream) -> Iterator[None]:
    """Inside, all images of a batch see one draw, the first of `stream`: a random model is a function of the image.

    To be entered anew for every pass, with a new stream of the same seed.
    """
    token = _FROZEN.set(True)
    try:
        with drawing_from(stream):
            yield
    finally:
        _FROZEN.reset(token)


def drawn_for(x: Tensor) -> Tensor:
    """What independent noise on a batch `x` is drawn for: `x` itself, or one image of it where draws are frozen."""
    return x[:1] if _FROZEN.get() else x


def is_random(model: object) -> bool:
    """Whether two passes of one image through `model` may differ.

    A module with a true `speaks_for_its_parts` says so itself, by its `random` and `shared`; else any part decides.
    """
    return any(getattr(part, "random", False) for part in _parts(model))


def has_shared_draws(model: object) -> bool:
    """Whether all images of a batch see the same draw (noisy weights), so copies in a batch are no new draws."""
    return any(getattr(part, "random", False) and getattr(part, "shared", False) for part in _parts(model))


def _parts(model: object) -> Iterator[object]:
    yield model
    if isinstance(model, nn.Module) and not getattr(model, "speaks_for_its_parts", False):
        for child in model.children():
            yield from _parts(child)


def normal_like(x: Tensor, std: float = 1.0) -> Tensor:
    """Draws from N(0, std^2) of the shape, dtype, device and memory format of `x`, independent per element."""
    return _drawn_like(x, lambda part, generator: part.normal_(std=std, generator=generator))


def centred_uniform_like(x: Tensor, std: float = 1.0) -> Tensor:
    """Draws of mean 0 from U[-a, a), a = sqrt(3) std, otherwise as `normal_like`."""
    half = 3**0.5 * std
    return _drawn_like(x, lambda part, generator: part.uniform_(-half, half, generator=generator))


def laplace_like(x: Tensor, std: float = 1.0) -> Tensor:
    """Draws from the Laplace law of mean 0 and scale b = std / sqrt(2), otherwise as `normal_like`."""

    def fill(part: Tensor, generator: torch.Generator | None) -> Tensor:
        # Odd multiples of eps / 2 in (-1, 1), since half of eps is lost in the range's length: symmetric, and no
        # logarithm of 0. The size of one is uniform in (0, 1), so minus its logarithm is exponential, and independent
        # of its sign.
        side = part.uniform_(torch.finfo(part.dtype).eps / 2 - 1, 1, generator=generator)
        return torch.copysign(side.abs().log_(), side, out=part).mul_(std / 2**0.5)

    # Coarser types would round draws next to 0 to 0.
    wide = x if x.dtype == torch.float64 else x.float()
    return _drawn_like(wide, fill, _BLOCK).to(x.dtype)


def uniform_like(x: Tensor) -> Tensor:
    """Draws from U[0, 1) of the shape, dtype and device of `x`, in index order (independent of its memory format)."""
    stream = _STREAM.get()
    generator = stream.generator(x.device) if stream else None
    return torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def _drawn_like(x: Tensor, fill: Fill, block: int | None = None) -> Tensor:
    # A tensor made in inference mode could not be filled by the worker threads.
    with torch.inference_mode(False), torch.no_grad():
        draws = torch.empty_like(x, requires_grad=False)
        # In memory order: drawing straight into a channels_last tensor takes PyTorch's slow path on a CPU.
        flat = draws.as_strided((draws.numel(),), (1,))
        _fill(flat, fill if block is None or flat.device.type != "cpu" else _by_blocks(fill, block))
    return draws


def _by_blocks(fill: Fill, block: int) -> Fill:
    def fill_blocks(part: Tensor, generator: torch.Generator | None) -> None:
        for piece in torch.split(part, block):
            fill(piece, generator)

    return fill_blocks


def _fill(flat: Tensor, fill: Fill) -> None:
    stream = _STREAM.get()
    if stream is None:
        fill(flat, None)
    elif flat.device.type != "cpu" or flat.numel() < _PARALLEL_FROM:
        fill(flat, stream.generator(flat.device))
    else:
        _fill_lanes(flat, fill, [stream.generator(flat.device, lane) for lane in range(LANES)])


def _fill_lanes(flat: Tensor, fill: Fill, generators: list[torch.Generator]) -> None:
    lanes = list(zip(flat.chunk(LANES), generators, strict=True))
    threads = min(torch.get_num_threads(), LANES)

    def fill_from(start: int) -> None:
        # Gradient mode and inference mode are a thread's own.
        with torch.inference_mode(False), torch.no_grad():
            for part, generator in lanes[start::threads]:
                fill(part, generator)

    others = [_workers(threads).submit(fill_from, start) for start in range(1, threads)]
    fill_from(0)
    for other in others:
        other.result()


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(threads - 1, 1), thread_name_prefix="noise")
