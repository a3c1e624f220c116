"""One image: original, attacked, behind channels, Fourier magnitudes (EEPD figure 16; ICLR draft figures 11, 12)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis.fourier import log_magnitude
from defenses import Channel, Stream, drawing_from
from evaluation import Cost
from papers.bench import Bench
from papers.experiment import Findings, Outcome, Value, Verdict, beside
from papers.kept import Arrays
from papers.pairs import Paired, Pairs
from papers.style import panels

_ATTACKED = "attacked"


@dataclass(frozen=True)
class Pictures(Paired):
    """The first image that is right, then broken, and right again behind every channel, or else the first broken one.

    Printed rows: original, attacked and the channels; columns "confidence" and "L2" (pixels in [0, 1]).

    Args:
        channels: by name, applied to the attacked image.
        fourier: whether a second row shows magnitudes of Fourier coefficients of the first colour, frequency 0 in the
            corners.
    """

    channels: dict[str, Channel] = field(default_factory=dict)
    fourier: bool = False

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        return self.attack_cost(bench) + Cost(forward=self.n * (2 + len(self.channels)))

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        attack = next(iter(self.attacks.values()))
        part = next(bench.parts(self.source()._replace(n=1)))
        many = 2 + len(self.channels)
        shapes: dict[str, tuple[int, ...]] = {
            "images": (many, *part.x.shape[1:]), "answers": (many,), "confidence": (many,), "label": (),
        }  # fmt: skip
        key = ("pictures", repr(self.channels))
        found = self.collected(bench, key, attack, shapes, lambda pairs: self._seen(bench, pairs))
        right = found["answers"] == found["label"][:, None]
        names = ["original", _ATTACKED, *self.channels]
        caption = (
            f"{self.title}. {self.network}, {self.data}, one of the first {self.n} images; {attack}; one draw of each "
            "channel; class numbers, probability of the answer, L2 from the original in pixels of [0, 1]."
        )
        if not len(right):
            return Findings([beside("pictures", {}, self.printed, f"{caption} No image was broken.")], {}, [])
        recovered = right[:, 2:].all(axis=1)
        shown = int(recovered.argmax())
        chosen = {name: values[shown] for name, values in found.items()}
        numbers = _numbers(names, chosen)
        verdict = _verdict(int(recovered.sum()), len(recovered))
        return Findings(
            [beside("pictures", numbers, self.printed, f"{caption} Image {int(chosen['index'])}.")],
            {"pictures": self._figure(names, chosen, numbers)},
            [verdict],
        )

    @torch.no_grad()
    def _seen(self, bench: Bench, pairs: Pairs) -> Arrays:
        model = bench.network(self.network).module
        kinds = [pairs.x, pairs.x_adv]
        for name, channel in self.channels.items():
            with drawing_from(Stream.named(bench.seed, "pictures", name, index=pairs.start)):
                kinds.append(channel(pairs.x_adv))
        probs = [model(x).softmax(1) for x in kinds]
        return {
            "images": torch.stack(kinds, 1).cpu().numpy(),
            "answers": torch.stack([each.argmax(1) for each in probs], 1).cpu().numpy(),
            "confidence": torch.stack([each.amax(1) for each in probs], 1).cpu().numpy(),
            "label": pairs.label.cpu().numpy(),
        }

    def _figure(self, names: list[str], chosen: Arrays, numbers: Mapping[str, Mapping[str, Value]]) -> Figure:
        figure, axes = panels(1 + self.fourier, len(names), 2.4, 2.8)
        for place, name in enumerate(names):
            image = torch.from_numpy(chosen["images"][place])
            of = numbers[name]
            text = f"{name}\nclass {of['class']}, {of['confidence'].value:.3f}\nL2 {of['L2'].value:.3f}"
            axes[place].imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[place].set_title(text, fontsize=8)
            if self.fourier:
                below = axes[len(names) + place]
                drawn = below.imshow(_magnitude(image), cmap="gray", interpolation="bilinear")
                figure.colorbar(drawn, ax=below, shrink=0.6).set_label("dB", fontsize=7)
        for each in axes:
            each.grid(visible=False)
            each.set_xticks([])
            each.set_yticks([])
        return figure


def _magnitude(image: Tensor) -> np.ndarray:
    return log_magnitude(image[0], shifted=False, floor=-60).numpy()


def _numbers(names: list[str], chosen: Arrays) -> dict[str, dict[str, Value]]:
    images = chosen["images"].astype(np.float64)
    return {
        name: {
            "class": Value(int(chosen["answers"][place])),
            "confidence": Value(float(chosen["confidence"][place])),
            "L2": Value(float(np.linalg.norm(images[place] - images[0]))),
        }
        for place, name in enumerate(names)
    }


def _verdict(recovered: int, n: int) -> Verdict:
    """A picture shows that it can happen; how often it does is for tables."""
    outcome: Outcome = "confirmed" if recovered else "undecided"
    claim = "there are attacked images that every one of these channels recovers"
    return Verdict(claim, outcome, f"{recovered} of {n} broken images")
