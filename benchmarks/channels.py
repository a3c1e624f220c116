"""What input channels cost: ratios from one run, the same images on both sides, in turns.

    python benchmarks/channels.py [--rounds N] [--threads N] [--images N]

1,000 images of 3x32x32 in the default layout, no gradients. Compressions stand beside the bare transform that they
cannot do without, noise beside `torch.randn` of the images' size, which draws on one thread as always; ours draws from
a stream as in training. Times are medians over the rounds; leave the machine alone meanwhile.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from defenses import Channel, FFTCompression, Gauss, Laplace, Stream, SVDCompression, Uniform, drawing_from

SIZE = 32
NOISE = (Gauss(0.1), Uniform(0.1), Laplace(0.1))
# What the project promises: our name, the bare one's, at most how many times as long.
BOUNDS = (
    ("SVDCompression", "torch.linalg.svd", 3.0),
    ("FFTCompression", "rfft2 and irfft2", 2.0),
    *((type(noise).__name__, "torch.randn", 1.2) for noise in NOISE),
)


def through(channel: Channel, x: Tensor) -> Callable[[], Tensor]:
    """The channel, drawing from a stream."""
    stream = Stream(0)

    def run() -> Tensor:
        with drawing_from(stream):
            return channel(x)

    return run


def variants(x: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed."""
    ours = [SVDCompression(50), FFTCompression(50), *NOISE]
    return {type(channel).__name__: through(channel, x) for channel in ours} | {
        "torch.linalg.svd": lambda: torch.linalg.svd(x, full_matrices=False),
        "rfft2 and irfft2": lambda: torch.fft.irfft2(torch.fft.rfft2(x), s=(SIZE, SIZE)),
        "torch.randn": lambda: torch.randn(x.shape),
    }


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Time all variants in turns and print the ratios beside their bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runs = variants(torch.rand(arguments.images, 3, SIZE, SIZE))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.no_grad():
        for _ in range(arguments.rounds + 1):
            for name, run in runs.items():
                seconds[name].append(timed(run))
    report({name: median(values[1:]) for name, values in seconds.items()}, arguments)  # the first one warms up


def report(times: dict[str, float], arguments: argparse.Namespace) -> None:
    """Print the table."""
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.images} images, medians\n")
    print("| ratio | measured | wanted |\n|---|---|---|")
    for name, bare, bound in BOUNDS:
        print(f"| {name} / {bare} | {times[name] / times[bare]:.2f} | at most {bound} |")


if __name__ == "__main__":
    main()
