"""A part of a per-image table as a file: the rows of one batch under one adversary, what they took, and checksums."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from evaluation.batch import SCHEMA
from evaluation.cost import Cost

_COST = b"freshdraw.cost"  # key of a part's metadata


def parquet(table: pa.Table, cost: Cost | None = None) -> bytes:
    """A table as the content of a file whose pages carry checksums; with `cost` in its metadata, if one is given."""
    if cost is not None:
        table = table.replace_schema_metadata({_COST: json.dumps(asdict(cost))})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a part, of `SCHEMA`; only some of its columns, if they are named.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is not a part, or was damaged: its pages are compared with their checksums, if they have
            any (those of older versions have none).
    """
    # Read first, parse afterwards: a file without read permission must not pass for a truncated one.
    data = path.read_bytes()
    names = SCHEMA.names if columns is None else columns
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _cost(file.schema_arrow)  # which has no checksum, but can be read or not
        return file.read(columns).cast(pa.schema([SCHEMA.field(name) for name in names]))
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a part of a per-image table: {error}") from None


def cost_of(path: Path) -> Cost:
    """What a part took; nothing if it does not say."""
    return _cost(pq.read_schema(path))


def right_shares(path: Path) -> NDArray[np.float64]:
    """The share of right passes over each image of a part, [B] in [0, 1].

    Raises:
        FileNotFoundError: there is none.
        ValueError: see `read_part`.
    """
    part = read_part(path, ["label", "counts", "draws"])
    label, counts = np.asarray(part["label"]), part["counts"].combine_chunks().flatten().to_numpy()
    return counts.reshape(len(label), -1)[np.arange(len(label)), label] / np.asarray(part["draws"])


def _cost(schema: pa.Schema) -> Cost:
    return Cost(**json.loads((schema.metadata or {}).get(_COST, b"{}")))
