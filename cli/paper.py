"""`evaluate.py paper`: an experiment of the papers at a chosen scale, beside the printed numbers."""

import dataclasses
import shlex
import time
from collections.abc import Collection, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from cli.messages import shorten
from cli.names import CONFIGS, UsageError, number_in, resolve, unknown
from cli.parser import Parser, read_settings
from cli.progress import Pulse, duration
from cli.targets import target_at
from cli.trained import trained_here
from evaluation import aligned
from evaluation.records import write_atomically
from evaluation.sessions import code_version, processor
from papers import Bench, Experiment, MissingNetwork, overview, smoke, write
from papers.writing import shown

PLACES = ("--scale", "--weights", "--data.root", "--imagenet", "--seed", "--out")
# Published networks by the names of their files, and the recipes that they belong to.
RECIPES = {
    "cifar10_plain": "plain",
    "cifar10_adv": "adv",
    "cifar10_pni_w_adv": "pni_w_adv",
    "cifar10_robustnet": "robustnet",
    "cifar10_robustnet_adv": "robustnet_adv",
    "cifar10_resnet20_imagenet_norm": "plain_normalized",
}
USAGE = (
    "python evaluate.py paper NAME... [--scale smoke|laptop|paper] [--weights DIR] [--data.root DIR] [--imagenet DIR] "
    "[--seed N] [--out DIR]"
)


def experiments() -> dict[str, Path]:
    """The experiments by name."""
    return {path.stem: path for path in sorted((CONFIGS / "papers").glob("*.yaml"))}


def read_experiment(file: Path, scale: str) -> Experiment:
    """The experiment of a file at a scale.

    A file may begin with `same_as: NAME`, another file beside it; its own init_args then take the place of that one's.

    Raises:
        UsageError: the file does not describe an experiment, or has no such scale.
    """
    settings = read_settings(file)
    if "same_as" in settings:
        other = read_settings(file.with_stem(str(settings["same_as"])))
        settings = {**other, "init_args": {**other["init_args"], **(settings.get("init_args") or {})}}
    if scale != "smoke":
        own = settings.get("init_args", {})
        scales = own.get("scales") or {}
        if scale not in scales:
            raise UsageError(f"--scale takes smoke, {', '.join(scales)} for {file.stem}, got '{scale}'")
        settings["init_args"] = {**own, **scales[scale]}
    parser = Parser()
    parser.add_argument("--it", type=Experiment)
    try:
        # Without defaults: jsonargparse would hand settings of a default's class on to another class that a file names.
        parsed = parser.parse_args([f"--it={yaml.safe_dump(settings, sort_keys=False)}"], defaults=False)
        found: Experiment = parser.instantiate(parsed).it
    except (UsageError, ValueError) as error:
        raise UsageError(f"{file}: {shorten(str(error), [])}") from error
    return smoke.shortened(found) if scale == "smoke" else found


def main(words: list[str]) -> None:
    """Run one experiment, several, or all.

    Args:
        words: those after `paper`: names of experiments or "all", and options.

    Raises:
        UsageError: a name is unknown, an option is wrong, or an experiment needs a network that is not there; those
            that do not need it are run first.
    """
    taken = (invocation := resolve(words, take=PLACES)).taken
    if invocation.recipe:
        raise UsageError(f"paper takes no --model: the experiments name their networks; usage: {USAGE}")
    if options := [word for word in invocation.options if word.startswith("-")]:
        raise UsageError(f"paper takes no {options[0]}; usage: {USAGE}")
    known = experiments()
    scale, out = taken.get("--scale", "smoke"), Path(taken.get("--out", "runs/papers"))
    names = _names(invocation.options, known)
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]  # no TF32: reported numbers are float32
    missing = _run_all({name: read_experiment(known[name], scale) for name in names}, scale, taken, out, words)
    out.mkdir(parents=True, exist_ok=True)
    page = out / "overview.md"
    write_atomically(page, overview(out, known).encode())
    print(f"wrote {page}")
    if missing:
        raise UsageError("; ".join(missing))


def _names(words: list[str], known: Collection[str]) -> list[str]:
    names = list(known) if words == ["all"] else words
    if not names:
        raise UsageError(f"name one or more of {', '.join(known)}, or all; usage: {USAGE}")
    if wrong := [name for name in names if name not in known]:
        raise UsageError(unknown("experiment", wrong[0], [*known, "all"], "see configs/papers"))
    return names


def _bench(scale: str, taken: dict[str, str], out: Path) -> Bench:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seed, code = number_in(taken, "--seed", int, 0) or 0, code_version()
    if scale == "smoke":
        return Bench(out / "smoke", smoke.network, smoke.split, seed, device, code=code)
    places = _Places(taken)
    return Bench(out / "kept", places.network, cache(places.split), seed, device, code=code)


class _Places:
    """Where networks and images lie, as the options say."""

    def __init__(self, taken: dict[str, str]) -> None:
        self.taken = taken

    def network(self, name: str) -> torch.nn.Module:
        """A published network, or one trained here (`cli.trained`).

        Raises:
            MissingNetwork: it has not been trained yet.
        """
        if name.startswith("run:"):
            return trained_here(name, Path("runs"), [f"--data.root={self._of('--data.root')}"])
        if name == "imagenet_squeezenet1_0":
            return self._squeezenet(name)
        if name not in RECIPES:
            raise UsageError(f"no network is called {name}; known: {', '.join(RECIPES)}, run:RECIPE")
        return target_at(f"{RECIPES[name]}={self._file(name)}", [f"--data.root={self._of('--data.root')}"]).network

    def split(self, data: str) -> Any:
        """A data set's test split; of photographs, which lie class by class, in a mixed order."""
        import datamodules

        root = self._of("--imagenet" if data == "ImageNet" else "--data.root")
        split = getattr(datamodules, data)(root=root).split("test")
        return _Mixed(split) if data == "ImageNet" else split

    def _squeezenet(self, name: str) -> torch.nn.Module:
        from torchvision.models import squeezenet1_0

        from models import Normalized, read_weights

        network = squeezenet1_0(weights=None)
        network.load_state_dict(read_weights(self._file(name)).tensors)
        return Normalized(network, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    def _file(self, name: str) -> Path:
        return Path(self._of("--weights")) / f"{name}.safetensors"

    def _of(self, option: str) -> str:
        if option not in self.taken:
            raise UsageError(f"{option} is missing: a scale above smoke needs published networks and real images")
        return self.taken[option]


class _Mixed:
    """Images in a mixed order, always the same, so that the first n are of many classes; each is decoded once.

    Args:
        split: pixels and labels by a list of indices.
    """

    def __init__(self, split: Any) -> None:
        self.split = split
        self.order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).tolist()
        self.known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, places: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        if missing := [place for place in places if place not in self.known]:
            pixels, labels = self.split[[self.order[place] for place in missing]]
            self.known.update(zip(missing, zip(pixels, labels, strict=True), strict=True))
        found = [self.known[place] for place in places]
        return torch.stack([pixels for pixels, _ in found]), torch.stack([label for _, label in found])


def _run_all(
    chosen: dict[str, Experiment], scale: str, taken: dict[str, str], out: Path, words: list[str]
) -> list[str]:
    """Run them one after the other; returns what networks some of them miss."""
    missing: list[str] = []
    benches: dict[str, Bench] = {}
    for name, experiment in chosen.items():
        bench = _bench(scale, taken, out)
        try:
            _run(name, experiment, scale, bench, out, words)
            benches[name] = bench
        except MissingNetwork as error:
            missing.append(f"{name}: {error}")
    if len(benches) > 1:
        print(_together(benches))
    return missing


def _together(benches: Mapping[str, Bench]) -> str:
    """What each rests on took, and what of it no earlier one rests on, too."""
    rows = [["CPU minutes of work", "alone", "after those above"]]
    known: dict[str, float] = {}
    for name, bench in benches.items():
        added = sum(seconds for batch, seconds in bench.work.items() if batch not in known)
        rows.append([name, *(f"{seconds / 60:,.1f}" for seconds in (sum(bench.work.values()), added))])
        known |= bench.work
    # Work from before there were notes has no times.
    about = "at least " if any("unknown" in bench.codes for bench in benches.values()) else ""
    total = f"together {about}{sum(known.values()) / 60:,.1f} CPU minutes of work, what several rest on counted once"
    return f"\n{aligned(rows)}\n{total}" if sum(known.values()) > 60 else total  # smoke: nothing but zeros


def _run(name: str, experiment: Experiment, scale: str, bench: Bench, out: Path, words: list[str]) -> None:
    cost = experiment.cost(bench)
    print(f"\n{name} ({scale}): {experiment.title}")
    if scale == "smoke":
        print("untrained networks on made-up images, to see that it runs: numbers and verdicts mean nothing")
    print(f"about {cost.forward:,} passes forward and {cost.gradient:,} back, less what is kept", flush=True)
    started, pulse = time.monotonic(), Pulse()
    bench.after_batch = lambda: pulse.beat(f"{bench.made} batches made")
    findings = experiment.run(bench)
    seconds = time.monotonic() - started
    facts = {
        "name": name,
        "title": experiment.title,
        "scale": scale,
        "settings": repr(experiment),
        "command": f"python evaluate.py paper {shlex.join(words)}",
        "cost": dataclasses.asdict(cost),
        "seconds": round(seconds, 1),
        "cpu_seconds_of_all_work": None if "unknown" in bench.codes else round(sum(bench.work.values()), 1),
        "seed": bench.seed,
        "date": date.today().isoformat(),
        "code": bench.code,  # as this process began; the folder may hold another version by now
        "code_of_work": sorted(bench.codes),  # some of it may be older
        "device": str(bench.device),
        "processor": processor(),
        "torch": torch.__version__,
    }
    files = write(out / name / scale, findings, facts)
    print(
        f"{shown(findings)}\n{duration(seconds)}; {bench.found} batches were kept from before, {bench.made} were made"
    )
    print("\n".join(f"wrote {file}" for file in files))
