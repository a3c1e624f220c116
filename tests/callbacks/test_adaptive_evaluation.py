"""Adaptive attacks in the middle of a training: the right numbers, for everyone who watches, and no trace."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint

from attacks import DDN, PGD, Linf
from callbacks import AdaptiveEvaluation
from callbacks.findings import ROW_COLUMNS, Findings
from defenses import Defended, FFTCompression
from evaluation import Setting, examine, rows_of, summarise, worst_case
from tests.callbacks.toys import CLASSES, SUITE, Kept, Module, images, loader, trainer


def by_hand(network: torch.nn.Module, n: int, size: int, draws: int, random: bool) -> pa.Table:
    """The per-image table in the order of a single device."""
    x, y = images().tensors
    x = x.contiguous(memory_format=torch.channels_last)
    parts = [
        examine(network, (x[i : min(i + size, n)], y[i : min(i + size, n)]), i, name, attack, 5, draws, not random)
        .rows.to_arrow(name, i // size)
        for name, attack in {"clean": None, **SUITE}.items()
        for i in range(0, n, size)
    ]  # fmt: skip
    return pa.concat_tables(parts)


@pytest.mark.parametrize("random", [True, False])
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_the_numbers_are_those_of_an_evaluation_by_hand(random: bool, stage: str) -> None:
    # Lightning's validate and test run in inference mode, where an attack cannot take gradients by itself.
    module, draws = Module(random), 6 if random else 1
    watcher = AdaptiveEvaluation(SUITE, n_images=19, draws=draws, batch_size=8, seed=5)
    (logged,) = getattr(trainer(watcher), stage)(module, loader(), verbose=False)
    prefix = "adaptive" if stage == "validate" else "test/adaptive"
    table = by_hand(module.network, 19, 8, draws, random)
    summaries = summarise(table, random=random, seed=5)
    assert [summary.adversary for summary in summaries] == ["clean", "pgd2", "pgd3"]
    for summary in summaries:
        assert summary.n == 19
        found = [logged[f"{prefix}/{summary.adversary}/{name}"] for name in ("accuracy", "low", "high")]
        assert found == pytest.approx([summary.accuracy, *summary.interval], abs=1e-6)
    worst = worst_case(rows_of(table), Setting(random, seed=5))
    found = [logged[f"{prefix}/worst_case{name}"] for name in ("", "/low", "/high")]
    assert found == pytest.approx([worst.accuracy, *worst.interval], abs=1e-6)
    rows = rows_of(table)["pgd2"]
    for label in range(CLASSES):
        expected = np.mean([right.mean() for right, y in zip(rows.right, rows.label, strict=True) if y == label])
        assert logged[f"{prefix}/pgd2/class/{label}"] == pytest.approx(expected, abs=1e-6)


def test_what_goes_as_far_as_it_must_is_no_worst_case() -> None:
    # DDN leads every image astray, the PGD of a ball without extent none.
    suite = {"ddn": DDN(steps=20), "nothing": PGD(Linf(0.0), step_size=0.1, steps=1)}
    (logged,) = trainer(AdaptiveEvaluation(suite)).validate(Module(random=False), loader(), verbose=False)
    assert logged["adaptive/ddn/accuracy"] < logged["adaptive/clean/accuracy"]
    assert logged["adaptive/worst_case"] == logged["adaptive/clean/accuracy"]
    alone = AdaptiveEvaluation({"ddn": DDN(steps=2)})
    (logged,) = trainer(alone).validate(Module(random=False), loader(), verbose=False)
    assert "adaptive/worst_case" not in logged


class Modes(pl.Callback):
    """Whether every part is in training mode when an epoch begins."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen.append(pl_module.training and all(part.training for part in pl_module.modules()))


@pytest.mark.parametrize("random", [True, False])
def test_training_does_not_notice(random: bool) -> None:
    weights, streams = [], []
    for watchers in ([], [AdaptiveEvaluation(SUITE, n_images=19, draws=2, batch_size=8)]):
        module, modes = Module(random), Modes()
        trainer(*watchers, modes, max_epochs=3).fit(module, loader(shuffle=True), loader())
        assert modes.seen == [True] * 3
        weights.append(module.state_dict())
        streams.append(torch.get_rng_state())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any("running_var" in name for name in weights[0])
    assert torch.equal(*streams)


def test_it_runs_first_every_few_epochs_and_last() -> None:
    kept = Kept()
    watcher = AdaptiveEvaluation(SUITE, every_n_epochs=3, n_images=8, draws=2)
    trainer(watcher, logger=kept, max_epochs=7, num_sanity_val_steps=1).fit(Module(), loader(), loader())
    epochs = [values["epoch"] for values in kept.metrics if "adaptive/worst_case" in values]
    assert epochs == [0, 2, 5, 6]


def test_checkpoints_and_early_stopping_watch_it(tmp_path: Path) -> None:
    kept = Kept()
    best = ModelCheckpoint(tmp_path, monitor="adaptive/worst_case", mode="max", save_top_k=1)
    # Nothing lies above 1: it stops when its patience ends.
    stop = EarlyStopping("adaptive/pgd2/accuracy", mode="max", min_delta=1.0, patience=2)
    watcher = AdaptiveEvaluation(SUITE, n_images=22, draws=4)
    runner = trainer(watcher, best, stop, logger=kept, max_epochs=9, enable_checkpointing=True)
    runner.fit(Module(), loader(), loader())
    values = [line["adaptive/worst_case"] for line in kept.metrics if "adaptive/worst_case" in line]
    assert len(values) == runner.current_epoch == 3
    assert float(best.best_model_score or -1) == max(values)
    assert len(list(tmp_path.glob("*.ckpt"))) == 1


@pytest.mark.parametrize("first", [True, False], ids=["EMA before it", "EMA after it"])
def test_averaged_weights_are_what_is_attacked(first: bool) -> None:
    module, watcher = Module(), AdaptiveEvaluation(SUITE, n_images=19, draws=6, batch_size=8, seed=5)
    ema = EMAWeightAveraging(decay=0.9)
    runner = trainer(*([ema, watcher] if first else [watcher, ema]), max_epochs=2)
    runner.fit(module, loader(), loader())
    # At the end of the training the callback puts the averaged weights into the module.
    table = by_hand(module.network, 19, 8, 6, True)
    logged = float(runner.callback_metrics["adaptive/pgd2/accuracy"])
    assert logged == pytest.approx(summarise(table, random=True)[1].accuracy, abs=1e-6)


def test_a_logger_gets_tables_lines_and_pictures() -> None:
    kept, module = Kept(), Module()
    module.network = Defended(module.network, [FFTCompression(percent=50)])  # type: ignore[assignment]
    watcher = AdaptiveEvaluation(SUITE, n_images=19, draws=4, eps=[0.1, "1/5"], panel_images=3)
    (logged,) = trainer(watcher, logger=kept).validate(module, loader(), verbose=False)
    names = ["clean", "pgd2_eps0.1", "pgd2_eps0.2", "pgd3_eps0.1", "pgd3_eps0.2"]
    columns, rows = kept.tables["adaptive/adversaries"]
    summaries = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [row["adversary"] for row in summaries] == names
    assert "eps 0.2" in summaries[2]["attack"]
    for row in summaries:
        assert row["accuracy"] == pytest.approx(logged[f"adaptive/{row['adversary']}/accuracy"], abs=1e-6)
    columns, rows = kept.tables["adaptive/images"]
    assert [dict(zip(columns, row, strict=True))["index"] for row in rows] == 5 * list(range(19))
    accuracy = {row["adversary"]: row["accuracy"] for row in summaries}
    _, curve = kept.curves["adaptive/over_eps"]
    assert curve.adversary == "pgd3"
    expected = [(0.0, "clean"), (0.1, "pgd3_eps0.1"), (0.2, "pgd3_eps0.2")]
    assert [(point.radius, point.accuracy) for point in curve.points] == [(eps, accuracy[at]) for eps, at in expected]
    # Where every perturbation counts, the accuracy over L2 is that of the attack.
    for curve in kept.curves["adaptive/over_l2"]:
        assert curve.points[-1].accuracy == pytest.approx(accuracy[curve.adversary])
    assert set(kept.images) == {f"adaptive/{name}/panel" for name in names[1:]}
    (image,), (caption,) = kept.images["adaptive/pgd2_eps0.1/panel"]
    assert image.size == (4 * 64 + 3 * 2, 3 * 64 + 2 * 2)
    assert "after FFTCompression" in caption


def test_all_rows_of_the_last_evaluation_are_kept(tmp_path: Path) -> None:
    module = Module()
    watcher = AdaptiveEvaluation(SUITE, n_images=19, draws=6, batch_size=8, seed=5)
    trainer(watcher, max_epochs=2, default_root_dir=tmp_path).fit(module, loader(), loader())
    kept = pq.read_table(tmp_path / "adaptive.parquet")
    assert kept.schema.metadata[b"freshdraw.epoch"] == b"1"
    assert kept.sort_by("adversary").equals(by_hand(module.network, 19, 8, 6, True).sort_by("adversary"))
    trainer(watcher, default_root_dir=tmp_path).test(module, loader(), verbose=False)
    assert pq.read_table(tmp_path / "test_adaptive.parquet").num_rows == kept.num_rows


def test_fewer_images_than_asked_for_are_all_taken() -> None:
    kept = Kept()
    watcher = AdaptiveEvaluation(SUITE, n_images=1000, draws=2)
    trainer(watcher, logger=kept).validate(Module(), loader(), verbose=False)
    assert {row[2] for row in kept.tables["adaptive/adversaries"][1]} == {22}


def test_a_sample_has_as_many_rows_of_each_adversary() -> None:
    table = by_hand(Module().network, 22, 8, 2, True)
    rows = Findings(table, Setting(True), {}).sampled_rows(most=10)
    assert [(row[0], row[1]) for row in rows] == [(name, i) for name in ("clean", *SUITE) for i in range(3)]
    first = rows_of(table)["pgd2"]
    found = dict(zip(ROW_COLUMNS, rows[3], strict=True))
    assert (found["label"], found["right"]) == (first.label[0], first.right[0].mean())
    assert found["l2"] == pytest.approx(first.l2[0])
    assert first.counts[0][found["answer"]] == first.counts[0].max()
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs must be at least 1, got 0"),
        ({"n_images": 0}, "n_images must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"eps": [-0.1]}, "a radius must be a finite number >= 0"),
        ({"suite": "no_such_suite"}, "suite 'no_such_suite' is neither a file nor one of"),
    ],
)
def test_what_is_impossible_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        AdaptiveEvaluation(**{"suite": SUITE, **settings})
    assert "\n" not in str(refusal.value)


def test_one_draw_is_no_judge_of_a_random_network() -> None:
    with pytest.raises(ValueError, match="at least 2 draws, got 1"):
        trainer(AdaptiveEvaluation(SUITE, draws=1)).validate(Module(), loader(), verbose=False)


def test_half_precision_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got --trainer\.precision bf16-true"):
        trainer(AdaptiveEvaluation(SUITE), precision="bf16-true").validate(Module(), loader(), verbose=False)
