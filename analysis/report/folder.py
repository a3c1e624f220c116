"""What lies in the folder of one evaluation, read once."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import datamodules
from evaluation import Rows, rows_of
from evaluation.batch import SCHEMA


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation.

    Attributes:
        folder: where it was read from.
        manifest: `manifest.json`.
        results: `results.json`.
        table: `per_image.parquet`.
    """

    folder: Path
    manifest: dict[str, Any]
    results: dict[str, Any]
    table: pa.Table

    @classmethod
    def read(cls, folder: Path) -> "Evaluation":
        """Reads a folder.

        Raises:
            FileNotFoundError: a file is missing: it is no evaluation, or one that has not come to its end.
            ValueError: a file is damaged, or of another kind.
        """
        manifest, results = json_object(folder / "manifest.json"), json_object(folder / "results.json")
        if "transfer" in results:
            raise ValueError(f"{folder} holds transfer matrices, not an evaluation")
        path = folder / "per_image.parquet"
        try:
            # Read first: a file that is missing must not pass for a damaged one.
            table = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read().cast(SCHEMA)
        except (pa.ArrowException, ValueError) as error:
            raise ValueError(f"{path} is not a per-image table: {error}") from None
        if not table.num_rows:
            raise ValueError(f"{path} holds no images")
        return cls(folder, manifest, results, table)

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """Adversary -> its images; "clean" first."""
        return rows_of(self.table)

    @property
    def series(self) -> dict[str, int]:
        """Adversary -> number of its colour, the same in all charts."""
        return {name: number for number, name in enumerate(self.rows)}

    @property
    def n(self) -> int:
        """Images."""
        return next(iter(self.rows.values())).n

    @property
    def is_beginning(self) -> bool:
        """Whether the images are the first ones of the split: a time limit may have left some out."""
        return bool(next(iter(self.rows.values())).index[-1] == self.n - 1)

    @property
    def draws(self) -> int:
        """Judge passes per image."""
        return next(iter(self.rows.values())).draws

    @property
    def random(self) -> bool:
        """Whether the model is; manifests before the key say it in the summaries only."""
        summaries = self.results.get("summaries") or [{}]
        return bool(self.manifest.get("random", summaries[0].get("random", self.draws > 1)))

    @property
    def recipe(self) -> str:
        """Name of the recipe."""
        return str(self.manifest.get("recipe") or "model")

    @property
    def data(self) -> str:
        """Name of the data set."""
        return str((self.manifest.get("data") or {}).get("class_path") or "data").rsplit(".", 1)[-1]

    @property
    def environment(self) -> dict[str, Any]:
        """Date, hardware and versions; older folders keep them within the manifest."""
        found = self.results.get("environment") or (self.results.get("manifest") or {}).get("environment")
        return dict(found or {})

    def class_name(self, number: int) -> str:
        """What a class is called, its number where the data set is not one of ours."""
        path = str((self.manifest.get("data") or {}).get("class_path", ""))
        # By name among ours, never by importing what a file says.
        names = getattr(getattr(datamodules, path.removeprefix("datamodules."), None), "classes", ())
        return str(names[number]) if number < len(names) else str(number)

    def images(self, adversary: str) -> dict[int, NDArray[np.float32]]:
        """Position in the split -> image [C, H, W] in [0, 1] as the adversary left it; empty where none were kept."""
        size, found = int(self.manifest.get("batch_size") or 0), {}
        for path in sorted((self.folder / "images" / adversary).glob("*.npy")):
            try:
                kept = np.load(path, allow_pickle=False)
            except (ValueError, EOFError):
                continue  # a report without this picture is better than none
            if kept.ndim == 4 and path.stem.isdecimal():
                first = int(path.stem) * size
                found.update({first + place: image for place, image in enumerate(kept)})
        return found


def json_object(path: Path) -> dict[str, Any]:
    """What a file holds.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else than a JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return content
