"""All numbers of an evaluation from its folder, and the file that holds them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.batch import Batch
from evaluation.curves import eps_curves, l2_curves
from evaluation.intervals import Interval
from evaluation.numbers import Numbers, numbers_of, results, setting_of, write_results
from evaluation.records import Records
from evaluation.summary import Setting, Summary, summarise
from evaluation.worst_case import WorstCase, worst_case
from tests.evaluation.made import made_right

MANIFEST = {
    "adversaries": ["clean", "pgd_eps0.1", "pgd_eps0.2"],
    "random": True,
    "shared": True,
    "votes": 3,
    "seed": 7,
    "radii": {"pgd": {"pgd_eps0.1": 0.1, "pgd_eps0.2": 0.2}},
}


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Two batches of 15 images and 8 draws for each adversary."""
    rng, records = np.random.default_rng(0), Records(tmp_path / "evaluation", MANIFEST)
    for number, name in [(number, name) for name in MANIFEST["adversaries"] for number in (1, 0)]:
        answers = (rng.random((15, 8)) > (0.9 if name == "clean" else 0.6)).astype(int)
        batch = Batch(
            index=15 * number + np.arange(15),
            label=np.zeros(15, int),
            answers=answers,
            probs=np.full((15, 2), 0.5),
            l2=rng.random(15),
            linf=rng.random(15),
            queries=np.full(15, 20),
            zero_gradient=np.zeros(15, bool),
            erred=np.zeros(15, bool),
            loss=np.empty((15, 0)),
            unfinished=np.full(15, np.nan),
        )
        records.write(name, number, batch, np.empty((0, 1, 2, 2), np.float32))
    return records


def test_a_folder_gives_all_numbers(records: Records) -> None:
    from evaluation.batch import rows_of

    setting = setting_of(records.manifest)
    assert setting == Setting(random=True, shared=True, votes=3, seed=7)
    table = records.table()
    numbers, rows = numbers_of(table, setting, records.manifest["radii"]), rows_of(table)
    assert numbers == numbers_of(rows, setting, records.manifest["radii"])
    assert numbers.summaries == summarise(table, random=True, shared=True, votes=3, seed=7)
    assert numbers.worst_case == worst_case(rows, setting)
    assert numbers.eps_curves == eps_curves(numbers.summaries, MANIFEST["radii"])
    assert numbers.l2_curves == l2_curves(rows, setting)
    assert [len(numbers.eps_curves[0].points), len(numbers.l2_curves)] == [3, 2]


def test_numbers_that_cannot_be_had_are_left_out() -> None:
    one, other = (made_right(np.ones((4, 1), bool), name) for name in ("clean", "pgd"))
    assert numbers_of({"clean": one}, Setting(random=False)).worst_case is None
    assert numbers_of({"clean": one, "pgd": other}, Setting(random=True)).worst_case is None
    assert numbers_of({"clean": one, "pgd": other}, Setting(random=False)).worst_case is not None


@pytest.mark.parametrize("random", [None, "yes"])
def test_a_manifest_says_whether_the_model_is_random(random: object) -> None:
    with pytest.raises(ValueError, match=r"manifest\['random'\] must say whether the model is, got"):
        setting_of({"random": random} if random else {})
    assert setting_of({"random": False}) == Setting(random=False)


def test_results_are_plain_json_and_round_trip(records: Records, tmp_path: Path) -> None:
    numbers = numbers_of(records.table(), setting_of(records.manifest), records.manifest["radii"])
    others = {
        "environment": {"torch": "2.15"},
        "command": "python evaluate.py RUN",
        "checks": [{"name": "loss rises", "verdict": "pass", "figures": {"share": 1.0}}],
        "cost": {"forward": 10, "backward": 5, "seconds": 1.5},
    }
    path = write_results(tmp_path, numbers, records.manifest, **others)
    assert path == tmp_path / "results.json"
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    content = json.loads(text)
    assert content == results(numbers, records.manifest, **others)
    keys = ["manifest", "environment", "command", "summaries", "worst_case", "curves", "checks", "cost"]
    assert list(content) == keys
    assert {name: content[name] for name in others} == others
    assert content["manifest"] == MANIFEST
    intervals = ("interval", "vote_interval", "worst_interval")
    read = [{**row, **{name: Interval(*row[name]) for name in intervals}} for row in content["summaries"]]
    assert [Summary(**row) for row in read] == numbers.summaries
    worst = content["worst_case"]
    assert WorstCase(**{**worst, "interval": Interval(*worst["interval"])}) == numbers.worst_case
    point = content["curves"]["eps"][0]["points"][0]
    assert point == {
        "radius": 0.0,
        "accuracy": numbers.summaries[0].accuracy,
        "interval": list(numbers.summaries[0].interval),
    }
    assert [curve["adversary"] for curve in content["curves"]["l2"]] == ["pgd_eps0.1", "pgd_eps0.2"]


def test_summaries_alone_are_results_too(records: Records) -> None:
    summaries = summarise(records.table(), random=True)
    content = results(summaries, {"seed": 0})
    assert content == results(Numbers(summaries, None, [], []), {"seed": 0})
    assert (content["worst_case"], content["curves"]) == (None, {"eps": [], "l2": []})


def test_results_refuse_what_is_not_a_number(records: Records, tmp_path: Path) -> None:
    (summary, *_) = summarise(records.table(), random=True)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(tmp_path, [replace(summary, l2_mean=math.nan)], {})
    assert not (tmp_path / "results.json").exists()
