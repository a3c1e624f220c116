"""One evaluation, ready to be run: what is asked for, what of it is refused, and where it goes."""

import hashlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from attacks import Attack
from callbacks import EndOnSigterm, Requeue, at_radii
from cli.checks import refuse_stranger
from cli.names import UsageError
from cli.parser import read_suite
from cli.processes import slurm_job, trainer_of
from cli.settings import Settings
from cli.targets import Target, refusing
from defenses import is_random
from defenses.randomness import has_shared_draws
from evaluation import Records

if TYPE_CHECKING:
    import pytorch_lightning as pl


@dataclass(frozen=True)
class Job:
    """One evaluation, ready to be run."""

    target: Target
    settings: Settings
    attacks: dict[str, Attack]
    split: Any
    records: Records
    trainer: "pl.Trainer"
    surrogate: Target | None

    @property
    def checks(self) -> Literal["none", "quick", "full"]:
        """Level of the checks; without attacks there is nothing to doubt."""
        return self.settings.checks if self.attacks else "none"

    @property
    def n(self) -> int:
        """Images at most."""
        return int(self.records.manifest["n"])


def prepared(target: Target, settings: Settings, surrogate: Target | None) -> Job:
    """Everything that can be refused, before anything is begun.

    Args:
        target: what is evaluated.
        settings: how.
        surrogate: another network, from which the checks transfer attacks.

    Raises:
        UsageError: something that was asked for is not to be had.
    """
    attacks, radii = _attacks(settings)
    split = refusing(target.cli.datamodule.split, settings.split)
    if settings.n is not None and settings.n > len(split):
        raise UsageError(f"--n {settings.n}: the {settings.split} split has {len(split)} images")
    if surrogate is not None:
        refuse_stranger(surrogate.network, target.network, split[0][0], f"--surrogate {settings.surrogate}")
    trainer = trainer_of(
        {
            **target.cli.config_init.trainer,
            "precision": "32-true",
            "logger": False,
            "callbacks": [Requeue(None) if slurm_job() else EndOnSigterm()],
            "enable_checkpointing": False,
            "enable_progress_bar": False,  # the evaluator has one that counts images
        }
    )
    manifest = _manifest(target, settings, attacks, radii, settings.n or len(split), trainer)
    return Job(target, settings, attacks, split, _records(target, settings, manifest), trainer, surrogate)


def _attacks(settings: Settings) -> tuple[dict[str, Attack], dict[str, dict[str, float]]]:
    """The suite's attacks by name; where several radii are asked for, each at each of them."""
    if settings.suite is None:
        return {}, {}
    found: tuple[dict[str, Attack], dict[str, dict[str, float]]] = refusing(
        at_radii, read_suite(settings.suite, None), settings.radii
    )
    return found


def _manifest(
    target: Target,
    settings: Settings,
    attacks: dict[str, Attack],
    radii: dict[str, dict[str, float]],
    n: int,
    trainer: "pl.Trainer",
) -> dict[str, Any]:
    """All that the numbers depend on."""
    data, random = target.cli.config.data, is_random(target.network)
    arguments = {k: v for k, v in data.init_args.as_dict().items() if k in ("val_images", "seed")}
    draws = settings.draws or (100 if random else 1)
    if settings.votes > draws:
        raise UsageError(f"--votes {settings.votes}: the judge asks only {draws} times; add --draws {settings.votes}")
    return {
        "adversaries": ["clean", *attacks],
        "attacks": {name: repr(attack) for name, attack in attacks.items()},
        "bounded": [name for name, attack in attacks.items() if getattr(attack, "ball", None) is not None],
        "batch_size": settings.batch_size or _batch_size(settings, trainer),
        "data": {"class_path": data.class_path, **(arguments if settings.split != "test" else {})},
        "draws": draws,
        "early_exit": settings.early_exit and not random,
        "keep": min(n, settings.keep),
        "model": target.cli.config.model.init_args.network.as_dict(),
        "n": n,
        "radii": radii,
        "random": random,
        "recipe": target.recipe,
        "seed": settings.seed,
        "shared": has_shared_draws(target.network),
        "split": settings.split,
        "votes": settings.votes,
        "weights_sha256": hashlib.sha256(target.source.read_bytes()).hexdigest(),
    }


def _batch_size(settings: Settings, trainer: "pl.Trainer") -> int:
    # A batch is what a killed evaluation loses, and what a budget is filled with. A GPU wants larger ones.
    if settings.budget is not None:
        return 20
    return 100 if trainer.strategy.root_device.type == "cpu" else 500


def _records(target: Target, settings: Settings, manifest: dict[str, Any]) -> Records:
    """The folder of this evaluation: the same command finds it again, another one gets another."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:8]
    name = settings.suite.stem if settings.suite else "clean"
    folder = settings.out or target.folder / "evaluations" / f"{name}_{settings.split}{manifest['n']}_{digest}"
    records: Records = refusing(Records, folder, manifest)
    for part in records.dropped:
        print(f"{folder / part}: was damaged and is done again", file=sys.stderr)
    return records
