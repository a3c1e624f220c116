"""Work that is kept in files: read, written, and claimed so that several processes can share it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from evaluation.records import write_atomically

Arrays = dict[str, NDArray[Any]]
Note = dict[str, Any]
# Files from before there were notes have none.
_NO_NOTE: Note = {"code": "unknown"}
_PATIENCE = 5  # seconds of waiting that nobody needs to be told of


def read(file: Path) -> tuple[Arrays, Note]:
    """The arrays of a file, and what was noted of how they were made."""
    with np.load(file) as kept:
        arrays = {name: kept[name] for name in kept.files if not name.startswith("_")}
        return arrays, json.loads(str(kept["_note"])) if "_note" in kept.files else _NO_NOTE


def write(file: Path, arrays: Arrays, note: Note) -> None:
    """Whole or not at all."""
    content = BytesIO()
    np.savez(content, _note=np.array(json.dumps(note)), **arrays)  # type: ignore[arg-type]  # numpy's stub: a flag
    write_atomically(file, content.getvalue())


@contextmanager
def claimed(file: Path, wait: bool, say: Callable[[str], None]) -> Iterator[bool]:
    """The right to make a file, which no two processes have at a time; it ends with the process, however that ends.

    Args:
        file: need not be there.
        wait: until whoever makes it now has ended.
        say: told so after some seconds.

    Yields:
        Whether the file is ours to make.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file.with_suffix(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            yield False
            return
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            say("another process is making the next batch: waiting for it")
            lock.acquire()
    try:
        yield True
    finally:
        # Whoever waits holds this file open and finds the work done; should two claim it after all, both make the same.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
