"""Counted accuracy against torchmetrics and by hand."""

import pickle

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from lightning_modules import CountedAccuracy

SIZES = [128, 128, 44, 1]


def batches() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(size, 5), torch.randint(5, (size,))) for size in SIZES]


def test_batches_and_epochs_are_those_of_torchmetrics() -> None:
    ours, reference = CountedAccuracy(), MulticlassAccuracy(5, average="micro")
    for _ in range(2):
        for logits, labels in batches():
            assert torch.equal(ours(logits, labels), reference(logits, labels))
        assert torch.equal(ours.compute(), reference.compute())
        ours.reset()
        reference.reset()


def test_an_uneven_batch_counts_by_its_images() -> None:
    accuracy = CountedAccuracy()
    accuracy.update(torch.eye(3), torch.tensor([0, 1, 2]))
    accuracy.update(torch.eye(3)[:1], torch.tensor([2]))
    assert (int(accuracy.correct), int(accuracy.total)) == (3, 4)
    assert accuracy.compute() == 0.75


def test_counts_do_not_lose_units() -> None:
    accuracy = CountedAccuracy()
    accuracy.correct = accuracy.total = torch.tensor(1 << 24)  # where float32 begins to skip numbers
    accuracy.update(torch.eye(2), torch.tensor([0, 0]))
    assert (int(accuracy.correct), int(accuracy.total)) == ((1 << 24) + 1, (1 << 24) + 2)


def test_a_pickled_accuracy_goes_on_counting() -> None:
    accuracy, whole = CountedAccuracy(), CountedAccuracy()
    for logits, labels in batches():
        whole.update(logits, labels)
        accuracy.update(logits, labels)
        accuracy = pickle.loads(pickle.dumps(accuracy))
    assert torch.equal(accuracy.compute(), whole.compute())


def test_processes_add_up() -> None:
    shares, whole = [CountedAccuracy(), CountedAccuracy()], CountedAccuracy()
    for index, (logits, labels) in enumerate(batches()[:3]):
        whole.update(logits, labels)
        shares[index % 2].update(logits, labels)
    shares[0].merge_state(shares[1])
    assert torch.equal(shares[0].compute(), whole.compute())


def test_a_state_made_in_inference_mode_counts_outside_of_it() -> None:
    accuracy = CountedAccuracy()
    with torch.inference_mode():
        accuracy.update(torch.eye(2), torch.tensor([0, 0]))
        accuracy.reset()
        accuracy.update(torch.eye(2), torch.tensor([0, 0]))
    accuracy.update(torch.eye(2), torch.tensor([0, 1]))
    assert accuracy.compute() == 0.75


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric CountedAccuracy was called before")
def test_no_image_gives_no_number() -> None:
    assert CountedAccuracy().compute().isnan()
