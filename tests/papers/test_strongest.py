"""Figure 4 under strong attacks: rows from the bench, distances, verdicts."""

from pathlib import Path

import numpy as np

from attacks import PGD, FixedCarliniWagner
from papers import Bench, Source, Strongest, smoke
from papers.strongest import rows_from, within_radius


def test_rows_keep_answers_batches_and_distances() -> None:
    judged = {
        "answers": np.array([[1, 1], [2, 0], [2, 2]]),
        "label": np.array([1, 2, 0]),
        "l2": np.array([0.0, 0.5, 1.0]),
        "linf": np.array([0.0, 0.1, 0.2]),
    }
    rows = rows_from("pgd", judged, Source("CIFAR10", 3, first=10, size=2))
    assert rows.index.tolist() == [10, 11, 12]
    assert rows.batch.tolist() == [0, 0, 1]
    assert rows.counts.tolist() == [[0, 2, 0], [1, 0, 1], [0, 0, 2]]
    assert rows.right.tolist() == [[True, True], [True, False], [False, False]]


def test_an_image_beyond_the_radius_stays_as_it_was() -> None:
    """Labels 0; right before, wrong after, at a distance of 1; the second image is wrong before and right after."""
    source = Source("CIFAR10", 2)
    made = {"label": np.zeros(2, int), "linf": np.zeros(2)}
    tables = {
        "clean": rows_from("clean", {**made, "answers": np.array([[0], [1]]), "l2": np.zeros(2)}, source),
        "cw": rows_from("cw", {**made, "answers": np.array([[1], [0]]), "l2": np.ones(2)}, source),
    }
    assert within_radius(tables, "cw", True, [0.5, 1.0])[:, 0].tolist() == [[True, False], [False, True]]
    assert within_radius(tables, "cw", False, [0.5, 1.0])[:, 0].tolist() == [[True, False], [False, False]]


def test_any_two_of_the_ranking_have_a_verdict(tmp_path: Path) -> None:
    bench = Bench(tmp_path, smoke.network, smoke.split, say=lambda text: None)
    networks = {"one": "plain", "two": "robustnet", "three": "pni"}
    settings = {"n": 6, "n_nearest": 4, "draws": 4, "networks": networks}
    experiment = Strongest(
        "a test", **settings, bounded={"pgd": PGD(steps=1)}, nearest={"cw": FixedCarliniWagner(c=9.0, steps=1)}
    )  # type: ignore[arg-type]
    found = experiment.run(bench)
    assert [verdict.claim.split(" under")[0] for verdict in found.verdicts] == [
        "one keeps more than two",
        "one keeps more than three",
        "two keeps more than three",
    ]
    accuracy, differences, distances = found.tables
    assert [row[0] for row in accuracy.rows] == list(networks)
    assert list(accuracy.header) == ["network", "clean", "pgd", "worst case"]
    assert len(differences.rows) == 3 * 3  # pairs, and for each: clean, pgd, worst case
    assert len(distances.rows) == 3
    assert "n = 6 (the first 4 for the smallest L2)" in distances.caption
    assert {len(np.load(file)["label"]) for file in tmp_path.glob("*.npz") if "answers" in np.load(file)} == {4, 6}
