"""Official files, real where they lie beside the checkout and synthetic elsewhere; errors in one line."""

import gzip
import pickle
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from datamodules import CIFAR10, MNIST, SVHN, ImageDataModule, ImageNet

SHARED = Path(__file__).parents[3] / "shared" / "data"


# CIFAR-10


@pytest.fixture
def tiny_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Official layout, 4 images a file; image i of training file f is filled with the value 10 * f + i."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, number: int) -> list[str]:
        values = np.arange(4, dtype=np.uint8) + 10 * number
        content = {
            "data": np.repeat(values[:, None], 3072, axis=1),
            "labels": [(int(v)) % 10 for v in values],
        }
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, md5((folder / name).read_bytes()).hexdigest()]

    train = [write(f"data_batch_{number}", number) for number in range(1, 6)]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [write("test_batch", 6)])
    return folder


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_is_read_from_the_folder_or_the_one_above(tiny_cifar10: Path, inside: bool) -> None:
    data = CIFAR10(str(tiny_cifar10 if inside else tiny_cifar10.parent), val_images=0, download=False)
    pixels, labels = data.split("train")[list(range(20))]
    assert pixels[:, 0, 0, 0].tolist() == [10 * file + i for file in range(1, 6) for i in range(4)]
    assert labels.tolist() == [0, 1, 2, 3] * 5
    assert data.split("test")[0][0].unique().tolist() == [60]


def test_damaged_cifar10_file_is_named_in_one_line(tiny_cifar10: Path) -> None:
    (tiny_cifar10 / "data_batch_3").write_bytes(b"not a pickle")
    with pytest.raises(ValueError, match=r"^CIFAR10: /[^\n]*/data_batch_3 is damaged [^\n]*$"):
        CIFAR10(str(tiny_cifar10)).split("train")
    assert len(CIFAR10(str(tiny_cifar10)).split("test")) == 4


@pytest.mark.skipif(not (SHARED / "cifar-10-batches-py").is_dir(), reason="no real CIFAR-10 beside the checkout")
def test_real_cifar10() -> None:
    data = CIFAR10(str(SHARED), download=False)
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [45000, 5000, 10000]
    pixels, labels = data.split("test")[list(range(10000))]
    assert labels.bincount().tolist() == [1000] * 10
    assert [data.classes[label] for label in labels[:3]] == ["cat", "ship", "ship"]
    # The channel means of the official test set, computed with torchvision's own reader.
    official = datasets.CIFAR10(str(SHARED), train=False).data
    assert torch.equal(pixels, torch.from_numpy(official).permute(0, 3, 1, 2))


# SVHN


def write_svhn(folder: Path) -> np.ndarray:
    """Writes 12 training and 3 test images in the official .mat layout; returns the training pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    train, test = (draws.integers(0, 256, (32, 32, 3, size), dtype=np.uint8) for size in (12, 3))
    savemat(folder / "train_32x32.mat", {"X": train, "y": np.arange(1, 13, dtype=np.uint8)[:, None] % 10 + 1})
    savemat(folder / "test_32x32.mat", {"X": test, "y": np.array([[10], [1], [9]], dtype=np.uint8)})
    return train


@pytest.mark.parametrize("below", ["", "svhn"])
def test_svhn_label_10_is_the_digit_0(tmp_path: Path, below: str) -> None:
    train = write_svhn(tmp_path / below)
    data = SVHN(str(tmp_path), val_images=0, download=False)
    pixels, labels = data.split("train")[list(range(12))]
    assert torch.equal(pixels[5], torch.from_numpy(train[..., 5]).permute(2, 0, 1))
    assert data.split("test")[[0, 1, 2]][1].tolist() == [0, 1, 9]
    assert labels.max() <= 9


def test_damaged_svhn_file_is_named_in_one_line(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(ValueError, match=r"^SVHN: /[^\n]*/test_32x32\.mat is damaged [^\n]*$"):
        SVHN(str(tmp_path)).split("test")


@pytest.mark.skipif(not (SHARED / "svhn-10k").is_dir(), reason="no real SVHN beside the checkout")
def test_real_part_of_svhn() -> None:
    data = SVHN(str(SHARED / "svhn-10k"), download=False)
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [7000, 1000, 2000]
    assert len(data.split("test")[list(range(2000))][1].bincount()) == 10


# MNIST


@pytest.mark.parametrize("below", ["", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_idx_files(tmp_path: Path, below: str, packed: bool) -> None:
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)

    def write(name: str, values: np.ndarray) -> None:
        header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">i4").tobytes()
        content = header + values.astype(np.uint8).tobytes()
        path = folder / (name + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(content) if packed else content)

    write("train-images-idx3-ubyte", pixels)
    write("train-labels-idx1-ubyte", np.array([5, 0, 9]))
    images = MNIST(str(tmp_path), val_images=0, download=False).split("train")
    assert torch.equal(images[[0, 1, 2]][0][:, 0], torch.from_numpy(pixels))
    assert images[[0, 1, 2]][1].tolist() == [5, 0, 9]


@pytest.mark.parametrize("content", [b"", bytes([0, 0, 8, 3, 0, 0, 0, 9]), bytes([0, 0, 8, 1, 0, 0, 0, 9, 1])])
def test_damaged_mnist_file_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=r"^MNIST: /[^\n]*/t10k-images-idx3-ubyte is damaged [^\n]*$"):
        MNIST(str(tmp_path)).split("test")


# ImageNet


@pytest.fixture(scope="module")
def tiny_imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 class folders each; training images in classes 0 ... 7, validation images in 3 and 998."""
    root = tmp_path_factory.mktemp("imagenet")
    draws = np.random.default_rng(0)
    for part, filled in (("train", range(8)), ("val", (3, 998))):
        for number in range(1000):
            folder = root / part / f"n{number:08d}"
            folder.mkdir(parents=True)
            if number in filled:
                noise = draws.integers(0, 256, (280, 300, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / "a.JPEG")
    Image.new("L", (400, 300), 128).save(root / "val" / "n00000003" / "grey.JPEG")
    return root


def test_imagenet_classes_are_places_in_the_sorted_list(tiny_imagenet: Path) -> None:
    images = ImageNet(str(tiny_imagenet)).split("test")
    pixels, labels = images[[0, 1, 2]]
    assert labels.tolist() == [3, 3, 998]
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 3, 224, 224))
    assert pixels[1].unique().tolist() == [128], "a grey photograph has three equal channels"
    assert torch.equal(images[2][0], pixels[2])


def test_imagenet_val_is_taken_from_the_training_photographs(tiny_imagenet: Path) -> None:
    data = ImageNet(str(tiny_imagenet), val_images=3)
    train, val = data.split("train"), data.split("val")
    assert sorted([*train.indices, *val.indices]) == list(range(8))
    assert torch.equal(val[0][0], val[0][0])


def test_imagenet_crops_differ_by_batch_and_not_by_worker_or_global_seed(tiny_imagenet: Path) -> None:
    options = {"val_images": 0, "batch_size": 4}
    loaders = [ImageNet(str(tiny_imagenet), num_workers=n, **options).train_dataloader() for n in (0, 2)]
    alone, helped = (torch.cat([x for x, _ in loader]) for loader in loaders)
    assert torch.equal(alone, helped)
    images = ImageNet(str(tiny_imagenet), **options).split("train")
    state = torch.get_rng_state()
    assert not torch.equal(images[[0, 1]][0][0], images[[0, 2]][0][0])
    other = ImageNet(str(tiny_imagenet), seed=1, **options).split("train")
    assert not torch.equal(images[0][0], other[0][0])
    assert torch.equal(torch.get_rng_state(), state)


def test_imagenet_evaluates_with_the_validation_folder_alone(tmp_path: Path, tiny_imagenet: Path) -> None:
    (tmp_path / "val").symlink_to(tiny_imagenet / "val")
    data = ImageNet(str(tmp_path), num_workers=0)
    assert sum(len(y) for _, y in data.test_dataloader()) == 3
    with pytest.raises(FileNotFoundError, match=r"^ImageNet: <wnid>/\*\.JPEG not found in /[^\n]*/train [^\n]*$"):
        data.split("train")


def test_imagenet_with_missing_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "val" / "n01440764").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"^ImageNet: /[^\n]*/val must hold 1000 class folders, not 1$"):
        ImageNet(str(tmp_path)).split("test")


def test_damaged_photograph_is_named_in_one_line(tmp_path: Path, tiny_imagenet: Path) -> None:
    folder = tmp_path / "val"
    for number in range(1000):
        (folder / f"n{number:08d}").mkdir(parents=True)
    whole = (tiny_imagenet / "val" / "n00000998" / "a.JPEG").read_bytes()
    (folder / "n00000000" / "half.JPEG").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"^ImageNet: /[^\n]*/half\.JPEG is damaged [^\n]*$"):
        ImageNet(str(tmp_path)).split("test")[0]


@pytest.mark.skipif(not (SHARED / "imagenet-sample").is_dir(), reason="no ImageNet sample beside the checkout")
def test_real_imagenet_sample() -> None:
    images = ImageNet(str(SHARED / "imagenet-sample")).split("test")
    assert len(images) == 1000
    pixels, labels = images[[0, 999]]
    assert labels.tolist() == [0, 999]
    assert pixels.shape == (2, 3, 224, 224)


# Files that are not there

DOWNLOADABLE = [
    (CIFAR10, "datamodules.cifar10.download_and_extract_archive", "data_batch_1"),
    (SVHN, "datamodules.svhn.download_url", "train_32x32.mat"),
    (MNIST, "datamodules.mnist.datasets.MNIST", "train-images-idx3-ubyte"),
]
ERRORS = [
    URLError("no route"),
    HTTPError("https://example.org", 403, "Forbidden", None, None),  # type: ignore[arg-type]
    TimeoutError("timed out"),
    RuntimeError("Error downloading:\nTried one mirror\nTried another"),
]


def one_line(name: str, wanted: str, folder: Path, reason: str) -> str:
    return (
        rf"^{name}: [^\n]*{wanted}[^\n]* not found in {folder}[^\n]* \({reason}[^\n]*\); "
        r"download with a network, give --data\.root DIR with the official files, or use --data Digits$"
    )


@pytest.mark.parametrize(("dataset", "_downloader", "wanted"), DOWNLOADABLE)
def test_missing_files_without_download(
    dataset: Callable[..., ImageDataModule], _downloader: str, wanted: str, tmp_path: Path
) -> None:
    name = dataset.__name__
    with pytest.raises(FileNotFoundError, match=one_line(name, wanted, tmp_path, "download is off")):
        dataset(str(tmp_path), download=False).split("train")


@pytest.mark.parametrize(("dataset", "downloader", "wanted"), DOWNLOADABLE)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_missing_files_and_a_network_that_fails(
    dataset: Callable[..., ImageDataModule],
    downloader: str,
    wanted: str,
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(downloader, fail)
    with pytest.raises(
        FileNotFoundError, match=one_line(dataset.__name__, wanted, tmp_path, "download failed: ")
    ) as info:
        dataset(str(tmp_path)).prepare_data()
    assert info.value.__cause__ is None, "the traceback of the download would bury the line"
    assert info.value.__suppress_context__


def test_a_download_is_read_where_it_was_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.svhn.download_url", lambda _url, root, _name, _md5: write_svhn(Path(root)))
    assert len(SVHN(str(tmp_path / "new"), val_images=2).split("train")) == 10
