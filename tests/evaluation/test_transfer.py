"""The transfer matrix against single attacks and judgements by hand."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from attacks import PGD, Linf
from defenses import GaussianNoise, RobustNet, Stream, drawing_from
from evaluation import Records, examine, judge, rows_of
from evaluation.transfer import Matrix, adversary
from models import ResNet20

ATTACK = PGD(Linf(0.2), 0.05, 3)
DRAWS = {"plain": 1, "noisy": 4}


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"plain": ResNet20(), "noisy": RobustNet(ResNet20(), init=GaussianNoise(0.5), inner=GaussianNoise(0.5))}


def matrix(models: dict[str, nn.Module], folder: Path) -> Matrix:
    names = ["clean", *(adversary(source, "pgd") for source in models)]
    records = {name: Records(folder / name, {"adversaries": names}) for name in models}
    return Matrix(models, {"pgd": ATTACK}, records, seed=7, draws=DRAWS)


def test_each_attack_is_made_once_and_judged_by_everybody(tmp_path: Path) -> None:
    x, y = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    models = networks()
    assert matrix(models, tmp_path).examine(0, 0, x, y) == 2
    for source, model in models.items():
        with drawing_from(Stream.named(7, "pgd", "attack", index=0)):
            x_adv = ATTACK(model, x, y)
        for target, judged in models.items():
            rows = rows_of(matrix(models, tmp_path).records[target].table())
            found = rows[adversary(source, "pgd")]
            with drawing_from(Stream.named(7, adversary(source, "pgd"), "judge", index=0)):
                verdict = judge(judged, x_adv, DRAWS[target])
            np.testing.assert_array_equal(found.answers, verdict.answers)
            np.testing.assert_allclose(found.linf, 0.2, atol=1e-3)
            assert rows["clean"].linf.max() == 0


def test_the_diagonal_of_a_network_without_noise_is_its_ordinary_evaluation(tmp_path: Path) -> None:
    x, y = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    models = networks()
    found = matrix(models, tmp_path)
    found.examine(0, 0, x, y)
    rows = rows_of(found.records["plain"].table())[adversary("plain", "pgd")]
    alone = examine(models["plain"], (x, y), 0, "pgd", ATTACK, seed=7, draws=1).rows
    np.testing.assert_array_equal(rows.answers, alone.answers)
    np.testing.assert_allclose(rows.l2, alone.l2, rtol=1e-6)


def test_what_was_written_is_not_made_again(tmp_path: Path) -> None:
    x, y = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    models = networks()
    found = matrix(models, tmp_path)
    found.examine(0, 0, x, y)
    before = {name: record.table() for name, record in found.records.items()}
    (tmp_path / "noisy" / "parts" / adversary("plain", "pgd") / "000000.parquet").unlink()
    again = matrix(models, tmp_path)
    assert again.examine(0, 0, x, y) == 1
    assert again.examine(0, 0, x, y) == 0
    assert all(record.table().equals(before[name]) for name, record in again.records.items())
