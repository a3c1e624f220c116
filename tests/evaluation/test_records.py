import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from evaluation.batch import SCHEMA, Batch
from evaluation.records import Records, write_atomically

MANIFEST: dict[str, Any] = {"adversaries": ["pgd", "clean"], "model": "VGG16", "seed": 0, "eps": [0.5, 1.0]}
SIZE, BATCHES, DRAWS, CLASSES = 4, 3, 5, 3


def a_batch(number: int, size: int = SIZE) -> Batch:
    rng = np.random.default_rng(number)
    return Batch(
        # Strided, as shards of a sampler are: batch order is not index order.
        index=np.arange(number, size * BATCHES, BATCHES),
        label=rng.integers(CLASSES, size=size),
        answers=rng.choice(CLASSES, p=[0.2, 0.3, 0.5], size=(size, DRAWS)),
        probs=rng.dirichlet(np.ones(CLASSES), size=size).astype(np.float32),
        l2=rng.uniform(size=size).astype(np.float32),
        linf=rng.uniform(size=size).astype(np.float32),
        queries=rng.integers(2**40, size=size),
        zero_gradient=rng.uniform(size=size) < 0.5,
        erred=rng.uniform(size=size) < 0.5,
        loss=rng.normal(size=(size, 4)).astype(np.float32),
        unfinished=rng.uniform(size=size).astype(np.float32),
    )


def fill(store: Records) -> list[tuple[str, int]]:
    """Writes what is not done, as an evaluation does; returns what it had to write."""
    todo = [(name, number) for name in MANIFEST["adversaries"] for number in range(BATCHES)]
    todo = [(name, number) for name, number in todo if not store.done(name, number)]
    for name, number in todo:
        store.write(name, number, a_batch(number))
    return todo


def test_a_row_survives_the_disk_unchanged(tmp_path: Path) -> None:
    store, batch = Records(tmp_path, MANIFEST), a_batch(0)
    store.write("clean", 0, batch)
    table = store.table()
    assert table.schema.equals(SCHEMA)
    assert table["adversary"].to_pylist() == ["clean"] * SIZE
    assert table["batch"].to_pylist() == [0] * SIZE
    assert table["draws"].to_pylist() == [DRAWS] * SIZE
    for name in ("answers", "counts", "probs", "loss"):
        np.testing.assert_array_equal(np.vstack(table[name].to_numpy()), getattr(batch, name))
    for name in ("index", "label", "l2", "linf", "queries", "zero_gradient", "erred", "unfinished"):
        np.testing.assert_array_equal(np.asarray(table[name]), getattr(batch, name))


def test_rows_are_sorted_by_the_manifests_adversaries_and_index(tmp_path: Path) -> None:
    store = Records(tmp_path, MANIFEST)
    fill(store)
    table = store.table()
    n = SIZE * BATCHES
    assert table["adversary"].to_pylist() == ["pgd"] * n + ["clean"] * n
    assert table["index"].to_pylist() == [*range(n), *range(n)]
    store.check(n)


def test_an_empty_folder_gives_an_empty_table(tmp_path: Path) -> None:
    table = Records(tmp_path, MANIFEST).table()
    assert table.num_rows == 0
    assert table.schema.equals(SCHEMA)


def test_a_resumed_evaluation_equals_an_uninterrupted_one_byte_for_byte(tmp_path: Path) -> None:
    whole = Records(tmp_path / "whole", MANIFEST)
    fill(whole)

    first = Records(tmp_path / "killed", MANIFEST)
    first.write("clean", 2, a_batch(2))
    first.write("pgd", 1, a_batch(1))
    leftover = first.folder / "parts" / "pgd" / ".000000.parquet.0123.tmp"
    leftover.write_bytes(b"PAR1 the process was killed here")

    second = Records(tmp_path / "killed", MANIFEST)
    assert second.dropped == []
    assert fill(second) == [("pgd", 0), ("pgd", 2), ("clean", 0), ("clean", 1)]
    assert second.finish().read_bytes() == whole.finish().read_bytes()
    assert pq.read_table(second.finish()).equals(whole.table())


@pytest.mark.parametrize("content", [b"", b"PAR1", "half"])
def test_a_truncated_part_is_dropped_and_done_again(tmp_path: Path, content: bytes | str) -> None:
    store = Records(tmp_path, MANIFEST)
    fill(store)
    before = store.finish().read_bytes()
    part = tmp_path / "parts" / "pgd" / "000001.parquet"
    data = part.read_bytes()
    part.write_bytes(data[: len(data) // 2] if isinstance(content, str) else content)

    again = Records(tmp_path, MANIFEST)
    assert again.dropped == ["parts/pgd/000001.parquet"]
    assert not again.done("pgd", 1)
    assert fill(again) == [("pgd", 1)]
    assert again.finish().read_bytes() == before


def test_a_part_with_other_columns_is_dropped(tmp_path: Path) -> None:
    store = Records(tmp_path, MANIFEST)
    store.write("pgd", 0, a_batch(0))
    part = tmp_path / "parts" / "pgd" / "000000.parquet"
    pq.write_table(store.table().drop_columns("l2"), part)
    assert Records(tmp_path, MANIFEST).dropped == ["parts/pgd/000000.parquet"]


def test_missing_double_and_foreign_images_are_found(tmp_path: Path) -> None:
    store = Records(tmp_path, MANIFEST)
    fill(store)
    n = SIZE * BATCHES
    (tmp_path / "parts" / "pgd" / "000001.parquet").unlink()
    # Batch 2 once more under another number: what a padding sampler does.
    store.write("clean", BATCHES, a_batch(2))
    with pytest.raises(ValueError, match="does not hold each of 12 images once") as error:
        store.check(n)
    message = str(error.value)
    assert "pgd: 4 missing (first: 1, 4, 7, 10)" in message
    assert "clean: 4 counted twice (first: 2, 5, 8, 11)" in message
    assert "\n" not in message
    with pytest.raises(ValueError, match=r"clean: 2 outside 0\.\.10 \(first: 11, 11\)"):
        store.check(n - 1)


def test_another_manifest_is_refused_in_one_line(tmp_path: Path) -> None:
    Records(tmp_path, MANIFEST)
    other = {"adversaries": ["pgd", "clean"], "model": "VGG16", "seed": 1, "eps": [0.5], "note": "a\nb"}
    with pytest.raises(ValueError, match="choose another folder or delete it") as error:
        Records(tmp_path, other)
    message = str(error.value)
    assert "seed was 0, now 1" in message
    assert "eps was [0.5, 1.0], now [0.5]" in message
    assert 'note was absent, now "a\\nb"' in message
    assert "model" not in message.removeprefix(str(tmp_path))
    assert "\n" not in message
    # The refusal left the folder as it was.
    Records(tmp_path, MANIFEST)


def test_the_manifest_is_plain_sorted_json_and_tuples_equal_lists(tmp_path: Path) -> None:
    Records(tmp_path, {**MANIFEST, "eps": (0.5, 1.0)})
    text = (tmp_path / "manifest.json").read_text()
    assert json.loads(text) == MANIFEST
    assert list(json.loads(text)) == sorted(MANIFEST)
    Records(tmp_path, MANIFEST)


def test_a_manifest_changed_by_another_process_is_noticed_before_the_table_is_used(tmp_path: Path) -> None:
    store = Records(tmp_path, MANIFEST)
    (tmp_path / "manifest.json").write_text(json.dumps({**MANIFEST, "seed": 7}))
    with pytest.raises(ValueError, match="seed was 7, now 0"):
        store.finish()
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is not JSON"):
        Records(tmp_path, MANIFEST)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "pgd\n", "é", 3])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(ValueError, match="an adversary's name has"):
        Records(tmp_path, {"adversaries": ["clean", name]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [None, [], "clean", ["pgd", "pgd"], ["pgd", "PGD"]])
def test_a_list_of_different_names_is_required(tmp_path: Path, names: object) -> None:
    with pytest.raises(ValueError, match=r"must be a list of names|must differ"):
        Records(tmp_path, {"adversaries": names})


def test_only_adversaries_of_the_manifest_are_written(tmp_path: Path) -> None:
    store = Records(tmp_path, MANIFEST)
    with pytest.raises(ValueError, match="'fgsm' is not in the manifest: pgd, clean"):
        store.write("fgsm", 0, a_batch(0))
    with pytest.raises(ValueError, match="batch must be at least 0, got -1"):
        store.done("pgd", -1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": np.zeros((2, 2), int)}, r"index must be \[B\]"),
        ({"label": np.zeros(3, int)}, r"label must be \(4,\) like index, got \(3,\)"),
        ({"probs": np.zeros((3, 3))}, "probs must have 4 rows like index, got 3"),
        ({"probs": np.zeros(4)}, r"probs \[B, classes\] and loss \[B, points\], got \(4,\), \(4, 5\), \(4,\)"),
        ({"answers": np.zeros((4, 0), int)}, "draws must be at least 1, got 0"),
        ({"answers": np.full((4, 2), -1)}, r"answers must be in 0\.\.2"),
        ({"answers": np.full((4, 2), 3)}, r"answers must be in 0\.\.2"),
        ({"unfinished": np.full(4, 1.1)}, r"unfinished must be in \[0, 1\] or NaN"),
        ({"index": np.array([0, 1, 1, 2])}, "each once"),
        ({"label": np.array([0, 1, 2, 3])}, r"label must be in 0\.\.2"),
        ({"probs": np.full((4, 3), np.nan)}, r"probs must be in \[0, 1\]"),
        ({"l2": np.array([0, 1, np.nan, 1])}, "l2 must be finite"),
        ({"linf": np.array([0, 1, np.inf, 1])}, "linf must be finite"),
        ({"queries": np.array([0, 1, -1, 1])}, "queries must be non-negative"),
    ],
)
def test_impossible_rows_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        replace(a_batch(0), **change)
    assert "\n" not in str(error.value)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


WORKER = """
import sys, numpy as np
from pathlib import Path
from evaluation import Batch, Records
sys.stdin.readline()  # both start together
store = Records(Path(sys.argv[1]), {"adversaries": ["clean"], "seed": 0})
rank, zeros = int(sys.argv[2]), np.zeros(2)
for number in range(rank, 20, 2):
    store.write("clean", number, Batch(
        index=np.arange(2) + 2 * number, label=np.zeros(2, int), answers=np.array([[0], [1]]),
        probs=np.full((2, 2), 0.5), l2=zeros, linf=zeros, queries=np.ones(2, int), zero_gradient=zeros > 0,
        erred=zeros > 0, loss=np.empty((2, 0)), unfinished=zeros))
assert store.dropped == []
"""


def test_two_processes_fill_one_new_folder_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    command = [sys.executable, "-W", "error", "-c", WORKER, str(folder)]
    ranks = [subprocess.Popen([*command, str(rank)], stdin=subprocess.PIPE) for rank in range(2)]
    for process in ranks:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    assert [process.wait(timeout=60) for process in ranks] == [0, 0]
    store = Records(folder, {"adversaries": ["clean"], "seed": 0})
    store.check(40)
    assert store.table()["index"].to_pylist() == list(range(40))
    assert [path for path in folder.rglob("*") if path.suffix == ".tmp"] == []


HOLDER = """
import sys
from pathlib import Path
from evaluation import Records
lock = Records(Path(sys.argv[1]), {"adversaries": ["pgd", "clean"]}).claim()
print("claimed", flush=True)
sys.stdin.readline()
"""


def test_a_folder_belongs_to_one_run_until_that_ends_however_it_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdin=-1, stdout=-1) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"claimed\n"
        second = Records(tmp_path, {"adversaries": ["pgd", "clean"]})
        with pytest.raises(ValueError, match=r"in use by another evaluation"):
            second.claim()
        holder.kill()
    second.claim().release()


def test_images_are_kept_beside_their_rows(tmp_path: Path) -> None:
    store, images = Records(tmp_path, MANIFEST), np.random.default_rng(0).uniform(size=(2, 3, 4, 4)).astype(np.float32)
    store.write("pgd", 1, a_batch(1), images)
    store.write("pgd", 2, a_batch(2))
    np.testing.assert_array_equal(store.images("pgd", 1), images)
    with pytest.raises(FileNotFoundError):
        store.images("pgd", 2)
