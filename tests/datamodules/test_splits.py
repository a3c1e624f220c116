"""What every datamodule does, shown on the embedded digits."""

from pathlib import Path

import pytest
import torch

from datamodules import Digits
from datamodules.base import Images


def test_train_and_val_are_disjoint_and_together_the_training_set() -> None:
    data = Digits(val_images=100)
    train, val = set(data.split("train").indices), set(data.split("val").indices)
    assert not train & val
    assert train | val == set(range(1797 - 360))
    assert len(val) == 100


def test_the_split_follows_the_seed_and_the_test_set_does_not() -> None:
    first, same, other = Digits(seed=0), Digits(seed=0, batch_size=7), Digits(seed=1)
    assert list(first.split("val").indices) == list(same.split("val").indices)
    assert list(first.split("val").indices) != list(other.split("val").indices)
    indices = list(range(360))
    assert torch.equal(first.split("test")[indices][0], other.split("test")[indices][0])


def test_training_and_test_digits_are_the_1797_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data = Digits(val_images=0)
    parts = [data.split("train"), data.split("test")]
    labels = torch.cat([part[list(range(len(part)))][1] for part in parts])
    pixels = torch.cat([part[list(range(len(part)))][0] for part in parts])
    official = load_digits()
    assert labels.bincount().tolist() == torch.from_numpy(official.target).bincount().tolist()
    assert sorted((pixels / 255 * 16).round().sum((1, 2, 3)).tolist()) == sorted(official.images.sum((1, 2)).tolist())
    assert pixels.max() == 255


def test_without_validation_images_all_are_trained_on() -> None:
    data = Digits(val_images=0)
    assert data.val_dataloader() == []
    assert len(data.split("train")) == 1437
    assert len(data.split("val")) == 0


@pytest.mark.parametrize("val_images", [1437, 5000])
def test_a_validation_set_that_leaves_nothing_is_refused(val_images: int) -> None:
    with pytest.raises(ValueError, match=rf"^val_images must be 0 \.\.\. 1436 of 1437 images, not {val_images}$"):
        Digits(val_images=val_images).split("train")


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("val_images", -1), ("crop_padding", -1), ("num_workers", -1), ("seed", -1)],
)
def test_senseless_numbers_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be at least \d, not {value}$"):
        Digits(**{name: value})


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^split must be train, val or test, not 'tset'$"):
        Digits().split("tset")  # type: ignore[arg-type]


def test_batches_are_floats_from_0_to_1() -> None:
    data = Digits(batch_size=200)
    raw, y = next(iter(data.test_dataloader()))
    x, same = data.on_after_batch_transfer((raw, y), 0)
    assert (raw.dtype, x.dtype, y.dtype) == (torch.uint8, torch.float32, torch.int64)
    assert x.shape == (200, data.channels, data.image_size, data.image_size)
    assert (x.min(), x.max()) == (0, 1)
    assert torch.equal((x * 255).round().byte(), raw)
    assert same is y


def test_floating_batches_pass_untouched() -> None:
    batch = torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    assert Digits().on_after_batch_transfer(batch, 0) is batch


def test_evaluation_batches_are_the_images_in_order() -> None:
    data = Digits(batch_size=100)
    labels = [y for _, y in data.test_dataloader()]
    assert [len(y) for y in labels] == [100, 100, 100, 60]
    assert torch.equal(torch.cat(labels), data.split("test")[list(range(360))][1])


def test_workers_load_the_same_batches() -> None:
    alone, helped = (list(Digits(num_workers=n, batch_size=300).train_dataloader()) for n in (0, 2))
    assert len(alone) == len(helped) == 4
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(alone, helped, strict=True))


def test_an_index_gives_one_image_and_a_list_several() -> None:
    images = Digits().split("test")
    pixels, label = images[3]
    several, labels = images[[3, 5]]
    assert torch.equal(several[0], pixels)
    assert labels[0] == label
    assert several.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2)),
    ],
)
def test_images_of_a_wrong_type_are_refused(pixels: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"^(pixels|labels) must be [^\n]*$"):
        Images(pixels, labels)


def test_hyper_parameters_are_plain_and_complete(tmp_path: Path) -> None:
    data = Digits(str(tmp_path), batch_size=7)
    assert dict(data.hparams) == {
        "root": str(tmp_path),
        "batch_size": 7,
        "val_images": 200,
        "crop_padding": 0,
        "flip": False,
        "num_workers": 0,
        "download": True,
        "seed": 0,
    }
