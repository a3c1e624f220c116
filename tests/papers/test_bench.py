"""Work is kept batch by batch, with what it cost and what it rests on."""

import threading
from pathlib import Path

import numpy as np
import pytest

from defenses import PapersGauss
from papers import smoke
from papers.bench import Bench, Part, Source
from papers.kept import Arrays

SOURCE = Source("CIFAR10", 4, size=2)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still but for what a test adds to it."""
    now = [0.0]
    monkeypatch.setattr("time.process_time", lambda: now[0])
    return now


def bench(folder: Path, code: str = "one") -> Bench:
    return Bench(folder, smoke.network, smoke.split, say=lambda line: None, code=code)


def collected(on: Bench, seconds: list[float], name: str = "outer") -> Arrays:
    """Two batches, each of which rests on another that takes 10 seconds, and takes 1 itself."""

    def slow(part: Part) -> Arrays:
        seconds[0] += 10
        return {"images": part.x.mean((1, 2, 3)).numpy()}

    def make(part: Part) -> Arrays:
        seconds[0] += 1
        return on.once(("inner",), SOURCE, part, slow)

    return on.over((name,), SOURCE, make)


def test_work_that_others_rest_on_is_counted_once(tmp_path: Path, seconds: list[float]) -> None:
    made = bench(tmp_path)
    first = collected(made, seconds)
    assert (made.made, made.found) == (4, 0)
    assert sum(made.work.values()) == 22

    again = bench(tmp_path, code="two")
    second = collected(again, seconds)
    np.testing.assert_array_equal(first["images"], second["images"])
    assert set(second) == {"images"}
    assert (again.made, again.found) == (0, 2)
    assert sum(again.work.values()) == 22  # what was found cost as much, though nothing of it was asked for again
    assert again.codes == {"one"}

    collected(again, seconds, "another that rests on the same")
    assert sum(again.work.values()) == 24
    assert again.codes == {"one", "two"}


def test_files_without_notes_are_of_unknown_code(tmp_path: Path, seconds: list[float]) -> None:
    collected(bench(tmp_path), seconds)
    for file in tmp_path.glob("*.npz"):
        with np.load(file) as kept:
            arrays = {name: kept[name] for name in kept.files if name != "_note"}
        np.savez(file, **arrays)
    found = bench(tmp_path)
    assert collected(found, seconds)["images"].shape == (4,)
    assert found.codes == {"unknown"}
    assert found.work == {}


def test_draws_depend_on_the_key_and_the_batch_only(tmp_path: Path) -> None:
    def draw(part: Part) -> Arrays:
        return {"drawn": PapersGauss(0.1)(part.x).mean((1, 2, 3)).numpy()}

    one = bench(tmp_path / "one").over(("draw",), SOURCE, draw)["drawn"]
    other = bench(tmp_path / "other")
    parts = list(other.parts(SOURCE))
    reversed_order = [other.once(("draw",), SOURCE, part, draw)["drawn"] for part in reversed(parts)]
    np.testing.assert_array_equal(one, np.concatenate(reversed_order[::-1]))
    assert len(set(one)) == 4


def test_processes_share_the_batches(tmp_path: Path) -> None:
    """Two at a time, here threads: each batch is made by one of them, and both have all."""
    source = Source("CIFAR10", 12, size=2)
    both_busy = threading.Barrier(2, timeout=20)
    made: list[int] = []
    found: dict[int, tuple[Bench, Arrays]] = {}

    def work(number: int) -> None:
        mine: list[int] = []

        def make(part: Part) -> Arrays:
            if not mine:
                both_busy.wait()
            mine.append(part.start)
            made.append(part.start)
            return {"images": part.x.mean((1, 2, 3)).numpy()}

        on = bench(tmp_path)
        found[number] = on, on.over(("shared",), source, make)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(made) == [0, 2, 4, 6, 8, 10]
    (one, mine), (other, theirs) = found[0], found[1]
    np.testing.assert_array_equal(mine["images"], theirs["images"])
    np.testing.assert_array_equal(
        mine["images"], np.concatenate([part.x.mean((1, 2, 3)).numpy() for part in one.parts(source)])
    )
    assert one.made + other.made == 6
    assert one.found + other.found == 6
    assert not list(tmp_path.glob("*.lock"))


def test_a_batch_that_rests_on_a_busy_one_is_left_for_later(tmp_path: Path) -> None:
    """Another process makes what the first batch rests on; meanwhile the second is made, then the first."""
    other, on, said = bench(tmp_path), bench(tmp_path), list[str]()
    on.say = said.append
    order: list[int] = []
    go, held = threading.Event(), threading.Event()

    def slow(part: Part) -> Arrays:
        held.set()
        assert go.wait(20)
        return {"images": part.x.mean((1, 2, 3)).numpy()}

    def quick(part: Part) -> Arrays:
        return {"images": part.x.mean((1, 2, 3)).numpy()}

    def make(part: Part) -> Arrays:
        found = on.once(("inner",), SOURCE, part, quick)
        order.append(part.start)
        if part.start == 2:
            go.set()
        return found

    first = next(other.parts(SOURCE))
    thread = threading.Thread(target=other.once, args=(("inner",), SOURCE, first, slow))
    thread.start()
    assert held.wait(20)
    found = on.over(("outer",), SOURCE, make)
    thread.join(20)
    assert order == [2, 0]
    assert (other.made, on.made, on.found) == (1, 3, 1)
    np.testing.assert_array_equal(found["images"], on.over(("outer",), SOURCE, make)["images"])
    assert set(said) <= {"another process is making the next batch: waiting for it"}


def test_a_batch_whose_maker_failed_is_made_by_who_comes_next(tmp_path: Path) -> None:
    def fails(part: Part) -> Arrays:
        raise KeyboardInterrupt

    part = next(bench(tmp_path).parts(SOURCE))
    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path).once(("key",), SOURCE, part, fails)
    arrays = bench(tmp_path).once(("key",), SOURCE, part, lambda part: {"labels": part.y.numpy()})
    assert arrays["labels"].tolist() == [0, 1]
