"""A part that was damaged on the disk does not pass for one."""

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation import SCHEMA, Cost, Records
from evaluation.parts import cost_of, parquet, read_part, right_shares
from tests.evaluation.test_records import MANIFEST, a_batch, fill

ROWS = a_batch(1).to_arrow("pgd", 1)


def place_of(data: bytes, name: str) -> int:
    """The lowest byte of the last value in the dictionary of a column of numbers with 4 bytes."""
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    (column,) = [group.column(k) for k in range(group.num_columns) if group.column(k).path_in_schema.startswith(name)]
    return int(column.data_page_offset) - 4


def flipped(data: bytes, place: int, bit: int = 1) -> bytes:
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


def test_a_flipped_bit_is_noticed_and_the_part_done_again(tmp_path: Path) -> None:
    store = Records(tmp_path, MANIFEST)
    fill(store)
    before = store.finish().read_bytes()
    part = tmp_path / "parts" / "pgd" / "000001.parquet"
    data = part.read_bytes()
    part.write_bytes(flipped(data, place_of(data, "probs")))
    # The file can be read, and says something else: nothing but the checksum tells.
    assert not pq.ParquetFile(part).read().equals(pq.ParquetFile(pa.BufferReader(data)).read())

    again = Records(tmp_path, MANIFEST)
    assert again.dropped == ["parts/pgd/000001.parquet"]
    assert fill(again) == [("pgd", 1)]
    assert again.finish().read_bytes() == before


def test_no_flipped_bit_among_the_rows_changes_them_unnoticed(tmp_path: Path) -> None:
    data, path = parquet(ROWS, Cost(1, 2, 3.0)), tmp_path / "part"
    footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    places, caught = range(0, footer, 7), 0
    for place in places:
        path.write_bytes(flipped(data, place, 1 << place % 8))
        try:
            assert read_part(path).equals(ROWS), place
        except ValueError:
            caught += 1
    assert caught > len(places) / 2  # the others are in the pages' headers, where nothing is read that matters


@pytest.mark.parametrize(("column", "cost"), [("answers", None), ("l2", Cost(1, 2, 3.0))])
def test_parts_without_checksums_are_read(tmp_path: Path, column: str, cost: Cost | None) -> None:
    pq.write_table(pq.ParquetFile(pa.BufferReader(parquet(ROWS, cost))).read(), tmp_path / "old")
    assert read_part(tmp_path / "old").equals(ROWS)
    assert read_part(tmp_path / "old", [column]).equals(ROWS.select([column]))
    assert cost_of(tmp_path / "old") == (cost or Cost())


@pytest.mark.parametrize("cost", [b'{"forward": 1', b'{"backward": 1}', b"[]", b"\xff"])
def test_a_cost_that_is_none_is_damage(tmp_path: Path, cost: bytes) -> None:
    pq.write_table(ROWS.replace_schema_metadata({b"freshdraw.cost": cost}), tmp_path / "part")
    with pytest.raises(ValueError, match="is not a part of a per-image table") as error:
        read_part(tmp_path / "part")
    assert "\n" not in str(error.value)


def test_the_share_of_right_passes_is_read_without_the_rest(tmp_path: Path) -> None:
    batch, path = a_batch(1), tmp_path / "part"
    path.write_bytes(parquet(ROWS.drop_columns("loss")))
    np.testing.assert_allclose(right_shares(path), (batch.answers == batch.label[:, None]).mean(axis=1))
    assert set(SCHEMA.names) > {"label", "counts", "draws"}
