"""`evaluate.py transfer`: attacks made on each of several networks and shown to all of them, as a matrix."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from analysis.transfer import figure, table
from cli.certify import device_of
from cli.names import UsageError, resolve
from cli.parser import read_suite
from cli.progress import Progress
from cli.settings import Settings
from cli.targets import Target, refusing, target_at
from defenses import is_random
from evaluation import Records, aligned, rows_of
from evaluation.records import write_atomically
from evaluation.transfer import Matrix, adversary

_TAKEN = ("--suite", "--eps", "--n", "--draws", "--split", "--batch_size", "--seed", "--out")


@dataclass(frozen=True)
class _Named:
    """A network that takes part, by the name that it has in the matrix."""

    name: str
    target: Target


def main(words: list[str]) -> None:
    """Run the command.

    Raises:
        UsageError: fewer than two networks, or one that is not there.
    """
    places = [word for word in words if not word.startswith("--") and _is_place(words, word)]
    options = [word for word in words if word not in places]
    if len(places) < 2:
        raise UsageError(f"transfer takes at least two networks, each RUN or RECIPE=WEIGHTS, got {len(places)}")
    settings = Settings.of(words, resolve([*options], take=_TAKEN).taken | {"--checks": "none"})
    if settings.suite is None or len(settings.radii) > 1:
        raise UsageError("transfer takes a suite with attacks, and one radius at most")
    attacks = read_suite(settings.suite, settings.radii[0] if settings.radii else None)
    members = _named([target_at(place, options, _TAKEN) for place in places])
    _transfer(members, attacks, settings)


def _is_place(words: list[str], word: str) -> bool:
    """Whether a word names a network: it is not the value of the option before it."""
    before = words[words.index(word) - 1] if words.index(word) else ""
    return not before.startswith("--") or "=" in before


def _named(targets: list[Target]) -> list[_Named]:
    """Each by its recipe, with a number where a recipe takes part more than once."""
    names = [target.recipe for target in targets]
    seen: dict[str, int] = {}
    found = []
    for target in targets:
        seen[target.recipe] = seen.get(target.recipe, 0) + 1
        number = f"_{seen[target.recipe]}" if names.count(target.recipe) > 1 else ""
        found.append(_Named(f"{target.recipe}{number}", target))
    return found


def _transfer(members: list[_Named], attacks: dict[str, Any], settings: Settings) -> None:
    first = members[0].target
    split = refusing(first.cli.datamodule.split, settings.split)
    n, size = settings.n or min(500, len(split)), settings.batch_size or 100
    if n > len(split):
        raise UsageError(f"--n {n}: the {settings.split} split has {len(split)} images")
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]  # no TF32: reported numbers are float32
    device = device_of(first)
    models = {m.name: m.target.network.to(device, memory_format=torch.channels_last) for m in members}  # type: ignore[call-overload]
    draws = {name: (settings.draws or 100) if is_random(model) else 1 for name, model in models.items()}
    folder, records = _folder(members, attacks, settings, n, size, draws)
    matrix = Matrix(models, attacks, records, settings.seed, draws)
    starts = range(0, n, size)
    progress = Progress(n, "images")
    for number, start in enumerate(starts):
        chosen = list(range(start, min(start + size, n)))
        pixels, labels = split[chosen]
        x = (pixels.to(device).float() / 255).contiguous(memory_format=torch.channels_last)
        matrix.examine(number, start, x, labels.to(device))
        progress.advance(len(chosen))
    progress.close()
    _report(folder, list(attacks), records, n)


def _folder(
    members: list[_Named], attacks: dict[str, Any], settings: Settings, n: int, size: int, draws: dict[str, int]
) -> tuple[Path, dict[str, Records]]:
    """One folder of records for each target; the same command finds them again."""
    data = members[0].target.cli.config.data
    manifest = {
        "adversaries": ["clean", *(adversary(member.name, name) for member in members for name in attacks)],
        "attacks": {name: repr(attack) for name, attack in attacks.items()},
        "batch_size": size,
        "data": data.class_path,
        "n": n,
        "seed": settings.seed,
        "sources": {m.name: hashlib.sha256(m.target.source.read_bytes()).hexdigest() for m in members},
        "split": settings.split,
    }
    digest = hashlib.sha256(json.dumps({**manifest, "draws": draws}, sort_keys=True).encode()).hexdigest()[:8]
    folder = settings.out or Path("runs") / "transfer" / f"{settings.split}{n}_{digest}"
    records = {
        m.name: refusing(Records, folder / m.name, {**manifest, "draws": draws[m.name], "target": m.name})
        for m in members
    }
    return folder, records


def _report(folder: Path, attacks: list[str], records: dict[str, Records], n: int) -> None:
    """The matrices, printed, drawn and written, from the tables and nothing else."""
    names = list(records)
    rows = {name: rows_of(record.table(complete=True)) for name, record in records.items()}
    results = {}
    for attack in attacks:
        cells = [[rows[target][adversary(source, attack)] for target in names] for source in names]
        results[attack] = {
            "sources": names,
            "targets": names,
            "accuracy": [[float(cell.right.mean()) for cell in line] for line in cells],
            "clean": [float(rows[target]["clean"].right.mean()) for target in names],
            "n": n,
        }
        print(f"\n{attack}: accuracy in %, attack made on the row, shown to the column; n = {n}")
        print(aligned(table(results[attack])))
    write_atomically(folder / "results.json", f"{json.dumps({'transfer': results}, indent=2)}\n".encode())
    figure(results).savefig(folder / "transfer.svg")
    print(f"wrote {folder / 'results.json'}\nwrote {folder / 'transfer.svg'}")
