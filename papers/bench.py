"""What experiments share: networks by name, images, and work that is done once, batch by batch, and kept.

Several processes with the same folder share it: none makes a batch that another is making.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attacks import Attack
from defenses import Channel, Defended, Stream, drawing_from, is_random
from evaluation import Cost, judge, per_image
from papers import kept
from papers.kept import Arrays


class MissingNetwork(LookupError):
    """A network that an experiment names has not been trained yet; the message says how it would be."""


class _Busy(Exception):
    """Another process is making the batch."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network and what tells it from all others.

    Attributes:
        name: as experiments and figures call it.
        module: images in [0, 1] -> logits.
        key: name, weights, and whatever stands in front of it.
    """

    name: str
    module: nn.Module
    key: str

    @classmethod
    def of(cls, name: str, module: nn.Module) -> "Network":
        """A network with its weights in its key."""
        digest = hashlib.sha256()
        for key, value in module.state_dict().items():
            digest.update(key.encode())
            digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
        return cls(name, module.eval(), f"{name}:{digest.hexdigest()[:16]}")

    def behind(self, channels: Sequence[Channel]) -> "Network":
        """The same weights with input channels in front."""
        if not channels:
            return self
        name = " + ".join(map(str, channels))
        return Network(f"{self.name} behind {name}", Defended(self.module, list(channels)), f"{self.key}<{channels!r}")


class Source(NamedTuple):
    """Which images: n of a data set's test split, from `first` on, in batches of `size`."""

    data: str
    n: int
    first: int = 0
    size: int = 50


@dataclass(frozen=True)
class Part:
    """One batch of a source: images [B, C, H, W] in [0, 1] and labels [B], its number, the place of its first image."""

    number: int
    start: int
    x: Tensor
    y: Tensor


class Bench:
    """Where experiments are made.

    Args:
        folder: where work is kept; a later run with the same folder does only what is missing.
        network: loads a network by name.
        split: the test split of a data set by name: images as uint8 [C, H, W] and labels, by a list of indices.
        seed: of everything that is drawn.
        device: where networks run.
        say: takes lines for whoever waits.
        code: version of the code, kept with the work.

    Attributes:
        made, found: batches of work that were done, and that were there from before.
        work: CPU seconds of each batch that was made or found, and of those that it rests on, by the names of files.
        codes: versions of the code that they were made with; `code`: that of this process.
        after_batch: called whenever one was done.
    """

    def __init__(
        self,
        folder: Path,
        network: Callable[[str], nn.Module],
        split: Callable[[str], Any],
        seed: int = 0,
        device: torch.device | str = "cpu",
        say: Callable[[str], None] = print,
        code: str = "unknown",
    ) -> None:
        self.folder, self.seed, self.device, self.say = folder, seed, torch.device(device), say
        self._load, self._split = network, split
        self._networks: dict[str, Network] = {}
        self.made = self.found = 0
        self.work: dict[str, float] = {}
        self.codes: set[str] = set()
        self.after_batch: Callable[[], None] = lambda: None
        self.code = code
        self._spent = 0.0  # CPU seconds on batches in this process
        self._waits = True  # for batches that another process is making
        self._under_way: list[dict[str, float]] = []  # for each batch that is being made, what it has rested on so far

    def network(self, name: str) -> Network:
        """A network by name, loaded once."""
        if name not in self._networks:
            module = self._load(name).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._networks[name] = Network.of(name, module)
        return self._networks[name]

    def parts(self, source: Source) -> Iterator[Part]:
        """The batches of a source."""
        split = self._split(source.data)
        for number, start in enumerate(range(source.first, source.first + source.n, source.size)):
            stop = min(start + source.size, source.first + source.n)
            pixels, labels = split[list(range(start, stop))]
            x = pixels if pixels.is_floating_point() else pixels.float() / 255
            x = x.to(self.device).contiguous(memory_format=torch.channels_last)
            yield Part(number, start, x, labels.to(self.device))

    def over(self, key: tuple[str, ...], source: Source, make: Callable[[Part], Arrays]) -> Arrays:
        """Something made of every batch and kept, put together along the first axis.

        Batches that another process is making are left until all others are there.

        Args:
            key: all that it depends on but the images, the seed among it only if it is another than the bench's.
            source: the images.
            make: of a batch; draws come from a stream of this key and batch.
        """
        found: dict[int, Arrays] = {}
        others = []
        for part in self.parts(source):
            try:
                found[part.number] = self._once(key, source, part, make, wait=False)
            except _Busy:
                others.append(part)
        for part in others:
            found[part.number] = self.once(key, source, part, make)
        ordered = [found[number] for number in sorted(found)]
        return {name: np.concatenate([arrays[name] for arrays in ordered]) for name in ordered[0]}

    def once(self, key: tuple[str, ...], source: Source, part: Part, make: Callable[[Part], Arrays]) -> Arrays:
        """The same of a single batch; if another process is making it, this waits."""
        return self._once(key, source, part, make, wait=self._waits)

    def _once(
        self, key: tuple[str, ...], source: Source, part: Part, make: Callable[[Part], Arrays], wait: bool
    ) -> Arrays:
        """See `once`.

        Raises:
            _Busy: another process is making it, or what it rests on, and this shall not wait.
        """
        whole = repr((*key, source.data, part.start, len(part.y), self.seed))
        file = self.folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:24]}.npz"
        if file.is_file():
            return self._found(file)
        with kept.claimed(file, wait, self.say) as ours:
            if file.is_file():  # now
                return self._found(file)
            if not ours:
                raise _Busy
            return self._made(file, key, part, make, wait)

    def _found(self, file: Path) -> Arrays:
        self.found += 1
        arrays, note = kept.read(file)
        self._note(note)
        return arrays

    def _made(self, file: Path, key: tuple[str, ...], part: Part, make: Callable[[Part], Arrays], wait: bool) -> Arrays:
        started, before, waited = time.process_time(), self._spent, self._waits
        self._under_way.append({})
        self._waits = wait
        try:
            with drawing_from(Stream.named(self.seed, *key, index=part.start)):
                arrays = make(part)
        finally:
            self._waits = waited
            beneath = self._under_way.pop()
        own = time.process_time() - started - (self._spent - before)  # without what it rests on and made just now
        self._spent += own
        note = {"code": self.code, "work": {**beneath, file.stem: own}}
        kept.write(file, arrays, note)
        self.made += 1
        self._note(note)
        self.after_batch()
        return arrays

    def _note(self, note: kept.Note) -> None:
        self.codes.add(note["code"])
        work = note.get("work", {})
        self.work |= work
        if self._under_way:
            self._under_way[-1].update(work)

    def attacked(self, network: Network, attack: Attack, source: Source, part: Part) -> Tensor:
        """A batch as an attack on a network leaves it, [B, C, H, W]; made once, whoever asks."""
        made = self.once(
            ("attack", network.key, repr(attack)),
            source,
            part,
            lambda part: {"x_adv": attack(network.module, part.x, part.y).cpu().numpy()},
        )
        x_adv = torch.from_numpy(made["x_adv"]).to(self.device)
        return x_adv.contiguous(memory_format=torch.channels_last)

    def judged(
        self,
        defense: Network,
        source: Source,
        draws: int = 1,
        made_on: Network | None = None,
        attack: Attack | None = None,
    ) -> Arrays:
        """What a defense answers to images, clean or as an attack on some network left them.

        Args:
            defense: the network that is asked.
            source: images.
            draws: passes of a random defense; another is asked once.
            made_on: the network that the attack was made on; None: the defense itself.
            attack: None: clean images.

        Returns:
            answers [n, draws], label [n], l2 and linf [n]: distance of the image from the clean one.
        """
        made_on = made_on or defense
        passes = draws if is_random(defense.module) else 1

        def make(part: Part) -> Arrays:
            x = part.x if attack is None else self.attacked(made_on, attack, source, part)
            delta = (x - part.x).flatten(1)
            with drawing_from(Stream.named(self.seed, "judge", *key, index=part.start)):
                answers = judge(defense.module, x, passes).answers
            found = {"answers": answers, "label": part.y, "l2": delta.norm(dim=1), "linf": delta.abs().amax(1)}
            return {name: value.cpu().numpy() for name, value in found.items()}

        key = ("judged", defense.key, str(passes), made_on.key if attack is not None else "", repr(attack))
        return self.over(key, source, make)

    def cost(self, network: Network, attack: Attack | None, source: Source, draws: int = 1) -> Cost:
        """About what attacking and judging a source costs, if nothing is there yet."""
        part = next(self.parts(source._replace(n=1)))
        with torch.no_grad():
            classes = network.module(part.x).shape[-1]
        passes = Cost(forward=draws if is_random(network.module) else 1)
        attacks = {} if attack is None else {"attack": attack}
        return sum(per_image(network.module, attacks, part.x[0], classes).values(), passes) * source.n
