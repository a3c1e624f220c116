"""The per-image table on disk: one file per batch, so that a killed evaluation goes on where it stopped."""

import json
import os
import re
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from evaluation.batch import SCHEMA, Batch
from evaluation.cost import Cost
from evaluation.parts import cost_of, parquet, read_part, right_shares


class Records:
    """A folder that holds one evaluation: ``manifest.json``, ``parts/<adversary>/<batch>.parquet``.

    The processes of one run may write different batches into the folder at once; a second run is refused by `claim`.
    A part is there whole or not at all, so a killed run loses no more than the batch in flight. Beside the rows lie
    the first images as each adversary left them, ``images/<adversary>/<batch>.npy``, for reports and for transfer.

    Args:
        folder: created if it does not exist, resumed if it holds an evaluation with the same manifest.
        manifest: all that the numbers depend on, as JSON values. ``manifest["adversaries"]`` lists the names
            in the order of the table, "clean" included. They become folder names: A-Z a-z 0-9 . _ - only, no
            dot in front.

    Attributes:
        dropped: parts (relative to the folder) that could not be read or were damaged: removed, and to be done again.

    Raises:
        ValueError: if a name is not allowed or the folder holds an evaluation with another manifest.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Opens the folder or creates it."""
        self.folder = Path(folder)
        # What JSON makes of it (tuples become lists), so that it equals what is read back.
        self.manifest: dict[str, Any] = json.loads(json.dumps(manifest, allow_nan=False))
        self.adversaries = _names(self.manifest)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._manifest_path.exists():
            text = json.dumps(self.manifest, indent=2, sort_keys=True, allow_nan=False)
            write_atomically(self._manifest_path, f"{text}\n".encode())
        self._compare_manifest()
        for name in self.adversaries:
            (self.folder / "parts" / name).mkdir(parents=True, exist_ok=True)
        self.dropped = self._drop_unreadable()

    def claim(self) -> FileLock:
        """Take the folder for this run, until the lock is released or the process ends, however it ends.

        Raises:
            ValueError: another process has it.
        """
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(f"{self.folder} is in use by another evaluation; wait for it or stop it") from None
        return lock

    def done(self, adversary: str, batch: int) -> bool:
        """Whether this batch has been written, by this process or another one."""
        return self._part(adversary, batch).exists()

    def write(
        self,
        adversary: str,
        batch: int,
        rows: Batch,
        images: NDArray[np.floating] | None = None,
        cost: Cost | None = None,
    ) -> None:
        """Writes one batch, whole or not at all.

        Args:
            adversary: one of the manifest's.
            batch: its number.
            rows: what the judge saw.
            images: [k, C, H, W] in [0, 1], the first k images of the batch as the adversary left them, to be kept.
            cost: what it took; beside the rows and not among them, since no two runs take the same time.
        """
        part = self._part(adversary, batch)
        if images is not None and len(images):
            content = BytesIO()
            np.save(content, np.ascontiguousarray(images, np.float32))
            path = self._images(adversary, batch)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content.getvalue())  # before the part: a batch that is done has its images
        write_atomically(part, parquet(rows.to_arrow(adversary, batch), cost or Cost()))

    def complete(self) -> list[int]:
        """Numbers of the batches that every adversary of the manifest has, sorted."""
        sets = [{int(path.stem) for path in self._parts(name)} for name in self.adversaries]
        return sorted(set.intersection(*sets))

    def cost(self) -> Cost:
        """What all that was written took, over all runs and processes."""
        paths = [path for name in self.adversaries for path in self._parts(name)]
        return sum(map(cost_of, paths), Cost())

    def right(self, adversary: str, batch: int) -> NDArray[np.float64]:
        """The share of right passes over each image of a batch that has been written, [B] in [0, 1].

        Raises:
            FileNotFoundError: it has not been written.
        """
        return right_shares(self._part(adversary, batch))

    def images(self, adversary: str, batch: int) -> NDArray[np.float32]:
        """The kept images of a batch, [k, C, H, W] in [0, 1]: its first k.

        Raises:
            FileNotFoundError: none were kept.
        """
        found: NDArray[np.float32] = np.load(self._images(adversary, batch))
        return found

    def table(self, complete: bool = False) -> pa.Table:
        """Returns all rows written so far, sorted by (order of the manifest's adversaries, index).

        The order of writing and the number of processes leave no trace in it.

        Args:
            complete: only batches that every adversary has, see `complete`.

        Raises:
            ValueError: if another process has put another manifest into the folder.
        """
        self._compare_manifest()
        table = pa.concat_tables([self._rows(name) for name in self.adversaries]).combine_chunks()
        return table.filter(pc.is_in(table["batch"], pa.array(self.complete(), pa.int32()))) if complete else table

    def check(self, n: int) -> None:
        """Checks that each adversary of the manifest has each of the images 0..n-1 exactly once.

        Raises:
            ValueError: if not; says how many of which adversary are missing, counted twice or outside.
        """
        table = self.table()
        names, index = np.asarray(table["adversary"]), np.asarray(table["index"])
        faults = [fault for name in self.adversaries for fault in _faults(name, index[names == name], n)]
        if faults:
            raise ValueError(f"{self.folder} does not hold each of {n} images once: {'; '.join(faults)}")

    def finish(self) -> Path:
        """Writes the table of the complete batches to ``per_image.parquet`` in the folder and returns its path."""
        path = self.folder / "per_image.parquet"
        write_atomically(path, parquet(self.table(complete=True)))
        return path

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def _images(self, adversary: str, batch: int) -> Path:
        return self.folder / "images" / adversary / f"{batch:06d}.npy"

    def _part(self, adversary: str, batch: int) -> Path:
        if adversary not in self.adversaries:
            raise ValueError(f"adversary {adversary!r} is not in the manifest: {', '.join(self.adversaries)}")
        if batch < 0:
            raise ValueError(f"batch must be at least 0, got {batch}")
        return self.folder / "parts" / adversary / f"{batch:06d}.parquet"

    def _parts(self, adversary: str) -> list[Path]:
        # Temporary files of running or killed processes end in .tmp.
        return sorted((self.folder / "parts" / adversary).glob("*.parquet"))

    def _rows(self, adversary: str) -> pa.Table:
        rows = pa.concat_tables([SCHEMA.empty_table(), *map(read_part, self._parts(adversary))])
        return rows.sort_by([("index", "ascending"), ("batch", "ascending")])

    def _compare_manifest(self) -> None:
        path, new = self._manifest_path, self.manifest
        try:
            old = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}); choose another folder or delete it") from None
        keys = sorted(key for key in {*old, *new} if _shown(old, key) != _shown(new, key))
        if keys:
            changes = "; ".join(f"{key} was {_shown(old, key)}, now {_shown(new, key)}" for key in keys)
            raise ValueError(f"{path} is of another run ({changes}); choose another folder or delete it")

    def _drop_unreadable(self) -> list[str]:
        dropped = []
        for path in [path for name in self.adversaries for path in self._parts(name)]:
            try:
                read_part(path)
            except (ValueError, FileNotFoundError):  # not found: another process was faster to remove it
                path.unlink(missing_ok=True)
                dropped.append(path.relative_to(self.folder).as_posix())
        return dropped


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that readers, during it or after a crash, see the old content or the new."""
    # Not tempfile: its files can be read by their owner only, and keep that mode when renamed.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _names(manifest: dict[str, Any]) -> tuple[str, ...]:
    names = manifest.get("adversaries")
    if not isinstance(names, list) or not names:
        raise ValueError(f"manifest['adversaries'] must be a list of names, got {names!r}")
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"(?!\.)[A-Za-z0-9._-]+", name):
            raise ValueError(f"an adversary's name has A-Z a-z 0-9 . _ - only, no . in front; got {name!r}")
    # Some file systems take PGD and pgd for one folder.
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError(f"names of adversaries must differ, and not only in case, got {', '.join(names)}")
    return tuple(names)


def _shown(manifest: dict[str, Any], key: str) -> str:
    return json.dumps(manifest[key], sort_keys=True) if key in manifest else "absent"


def _faults(name: str, index: NDArray[np.int64], n: int) -> list[str]:
    """Returns in words what keeps ``index`` from being a permutation of 0..n-1."""
    seen = np.bincount(index[index < n], minlength=n)
    faults = {
        "missing": np.flatnonzero(seen == 0),
        "counted twice": np.flatnonzero(seen > 1),
        f"outside 0..{n - 1}": index[index >= n],
    }
    return [
        f"{name}: {len(images)} {fault} (first: {', '.join(map(str, images[:5]))})"
        for fault, images in faults.items()
        if len(images)
    ]
