"""Weights & Biases: a mirror of what the run folder holds, that never asks and never waits. All of wandb is in here."""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import wandb
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from callbacks.tags import classes_in, tags_of
from evaluation.curves import Curve

_SECONDS_TO_CONNECT = 20
_SECONDS_TO_UPLOAD = 60  # at the end; what is left then is on disk, for `wandb sync`

_Method = TypeVar("_Method", bound=Callable[..., None])


class _Nothing:
    """Stands for a run that could not be begun or went away: takes everything, does nothing."""

    id = None

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self


def _expendable(method: _Method) -> _Method:
    """On rank 0 only; a failure of W&B ends the mirror, after one line, and nothing else."""

    @wraps(method)
    def attempt(self: "WandbRun", *args: Any, **kwargs: Any) -> None:
        if self.failed:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # whatever it is: the run is worth more than its mirror
            self.give_up(error)

    return cast(_Method, rank_zero_only(attempt))


class WandbRun(WandbLogger):
    """Lightning's logger that decides by itself between online and offline, and that a run can do without.

    Online where a key is known (`wandb login` or WANDB_API_KEY) and the server answers within 20 s, else offline:
    `wandb sync` uploads such a run later. WANDB_MODE has the last word. If W&B fails later on, whatever the reason,
    one line says so and the run goes on without it.

    Args:
        folder: folder of the run; W&B's files go to `wandb` in it.
        recipe: groups the runs of a recipe, and is their first tag.
        project: the project on the server.
        tags: shown beside the run; classes of data, training and defense follow from `log_hyperparams`.
        job_type: "train" or "evaluate".
        name: of the run; recipe and name of the folder if None.
        mode: "online", "offline" or "disabled" where WANDB_MODE does not say it; None decides as above.

    Attributes:
        failed: whether W&B was given up.
    """

    def __init__(
        self,
        folder: Path,
        recipe: str,
        project: str = "freshdraw",
        tags: Sequence[str] = (),
        job_type: str = "train",
        name: str | None = None,
        mode: str | None = None,
    ) -> None:
        # Artifacts are staged in the home directory otherwise, and a copied run folder would lack them.
        os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb"))
        settings = wandb.Settings(
            init_timeout=_SECONDS_TO_CONNECT, finish_timeout=_SECONDS_TO_UPLOAD, silent=True, console="off"
        )
        self.folder, self.recipe, self.job_type = folder, recipe, job_type
        self.failed = False
        super().__init__(
            name=name or f"{recipe}/{folder.name}",
            save_dir=folder,
            project=project,
            group=recipe,
            job_type=job_type,
            tags=tags_of(recipe, *tags),
            mode=os.environ.get("WANDB_MODE") or mode or _mode(),
            settings=settings,
        )
        # Lightning passes an argument that wandb warns about.
        self._wandb_init.pop("anonymous", None)

    @property
    def experiment(self) -> Any:
        """The run; offline if the server cannot be reached, and something that does nothing if W&B fails."""
        if self.failed:
            return _Nothing()
        try:
            return super().experiment
        except Exception as error:
            if self._wandb_init["mode"] != "online":
                self.give_up(error)
                return _Nothing()
            _say(f"W&B is not reachable ({_reason(error)}); this run is logged offline")
            self._wandb_init["mode"] = "offline"
            return self.experiment

    @_expendable
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The settings of the run; their data set, training and network, by class, become tags of a new run."""
        if self._experiment is None and isinstance(params, dict):
            self._wandb_init["tags"] = tags_of(*self._wandb_init["tags"], *classes_in(params))
        super().log_hyperparams(params)

    @_expendable
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """One point of each metric."""
        super().log_metrics(metrics, step)

    @_expendable
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """See `WandbLogger`."""
        super().log_image(key, images, step, **kwargs)

    @_expendable
    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """See `WandbLogger`."""
        super().log_table(key, columns, data, dataframe, step)

    @_expendable
    def log_curves(self, key: str, curves: Sequence[Curve], x_name: str, step: int | None = None) -> None:
        """Draw robust accuracy of several attacks into one chart.

        Args:
            key: of the chart.
            curves: at least one.
            x_name: what they are over.
            step: of the training.
        """
        x = [[point.radius for point in curve.points] for curve in curves]
        y = [[point.accuracy for point in curve.points] for curve in curves]
        names = [curve.adversary for curve in curves]
        chart = wandb.plot.line_series(x, y, names, f"robust accuracy over {x_name}", x_name)
        super().log_metrics({key: chart}, step)  # type: ignore[dict-item]

    @_expendable
    def log_summary(self, values: Mapping[str, float]) -> None:
        """Numbers that stand for the whole run."""
        self.experiment.summary.update(dict(values))

    @_expendable
    def log_files(self, name: str, kind: str, files: Sequence[Path], aliases: Sequence[str] = ()) -> None:
        """Keep copies of files as one artifact; those that are not there are left out.

        Args:
            name: of the artifact.
            kind: "model", "evaluation" or another type of W&B's.
            files: under their own names.
            aliases: besides "latest".
        """
        artifact = wandb.Artifact(re.sub(r"[^A-Za-z0-9._-]", "-", name), type=kind)
        there = [path for path in files if path.is_file()]
        for path in there:
            artifact.add_file(str(path), name=path.name)
        if there:
            self.experiment.log_artifact(artifact, aliases=["latest", *aliases])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the chosen checkpoint and close the run: wandb would add the next one of the same process to it."""
        if self._experiment is None:
            return
        if status == "success" and self.job_type == "train":
            found = [path for name in ("best", "last") if (path := self._checkpoint(name)).is_file()]
            self.log_files(self.recipe, "model", [*found[:1], self.folder / "config.yaml"], [p.stem for p in found[:1]])
        if not self.failed:
            self._finish(0 if status == "success" else 1)
        self._experiment = None  # a later test or fit begins anew, under the same id

    def give_up(self, error: Exception) -> None:
        """Say once why, and go on without W&B."""
        self.failed = True
        _say(f"W&B failed ({_reason(error)}); the run goes on without it, its numbers are in {self.folder}")
        try:
            wandb.finish(exit_code=1)
        except Exception:  # wandb's own process is gone: without this, wandb ends ours with a traceback
            with suppress(Exception):
                wandb.teardown(1)

    @_expendable
    def _finish(self, code: int) -> None:
        self._id = self.version
        self._wandb_init["id"] = self._id
        wandb.finish(exit_code=code)

    def _checkpoint(self, name: str) -> Path:
        return self.folder / "checkpoints" / f"{name}.ckpt"


def _mode() -> str:
    try:
        # Neither prompts nor talks to the server.
        return "online" if wandb.login(prompt=False, verify=False) else "offline"
    except Exception as error:  # a key that cannot be one
        _say(f"W&B takes no login ({_reason(error)}); this run is logged offline")
        return "offline"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
