"""Orders of images: every index where it belongs, on any number of ranks and after any restart."""

import pytest
import torch

from datamodules.sampling import SeededBatches, ShardedBatches, mixed_seed


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_sharded_batches_see_each_index_once(world_size: int) -> None:
    shards = [ShardedBatches(129, 16, rank, world_size) for rank in range(world_size)]
    batches = [batch for shard in shards for batch in shard]
    assert sorted(index for batch in batches for index in batch) == list(range(129))
    assert [len(list(shard)) for shard in shards] == [len(shard) for shard in shards]
    # The same batches as on one process, only dealt out.
    assert sorted(batches) == list(ShardedBatches(129, 16))


def test_sharded_batches_leave_a_rank_without_images_empty() -> None:
    assert len(ShardedBatches(10, 16, rank=1, world_size=2)) == 0


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_seeded_batches_are_disjoint_and_whole(world_size: int) -> None:
    ranks = [SeededBatches(100, 16, 0, rank, world_size) for rank in range(world_size)]
    batches = [batch for rank in ranks for batch in rank]
    indices = [index for batch in batches for index in batch]
    assert len(set(indices)) == len(indices) == 100 // (16 * world_size) * 16 * world_size
    assert {len(batch) for batch in batches} == {16}
    assert {len(rank) for rank in ranks} == {len(batches) // world_size}


def test_an_epoch_has_the_same_images_step_by_step_on_any_number_of_ranks() -> None:
    alone = list(SeededBatches(96, 16, 0))
    ranks = [list(SeededBatches(96, 8, 0, rank, 2)) for rank in range(2)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == alone


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = SeededBatches(64, 8, seed)
        batches.set_epoch(epoch)
        return list(batches)

    expected = order(0, 1)
    torch.manual_seed(7)
    assert order(0, 1) == expected
    assert order(0, 2) != expected
    assert order(1, 1) != expected


@pytest.mark.parametrize("start", [0, 1, 5, 8])
def test_a_start_leaves_out_batches_of_its_epoch_only(start: int) -> None:
    whole = SeededBatches(64, 8, 3)
    resumed = SeededBatches(64, 8, 3, epoch=2, start=start)
    whole.set_epoch(2)
    assert list(resumed) == list(whole)[start:]
    assert list(resumed) == list(whole)[start:], "asked a second time"
    assert len(resumed) == len(whole)
    for batches in (whole, resumed):
        batches.set_epoch(3)
    assert list(resumed) == list(whole)


@pytest.mark.parametrize(("size", "batch_size", "world_size"), [(15, 16, 1), (31, 16, 2), (10, 0, 1)])
def test_training_without_a_whole_batch_is_refused(size: int, batch_size: int, world_size: int) -> None:
    with pytest.raises(ValueError, match=r"^batch_size must be 1 \.\.\. \d+ with \d+ training images[^\n]*$"):
        SeededBatches(size, batch_size, 0, 0, world_size)


def test_evaluation_refuses_empty_batches() -> None:
    with pytest.raises(ValueError, match=r"^batch_size must be at least 1, not 0$"):
        ShardedBatches(10, 0)


def test_mixed_seeds_differ_in_every_place() -> None:
    keys = [(0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 1, 0), (2**40, 0)]
    assert len({mixed_seed(*key) for key in keys}) == len(keys)
