"""Streams: Gaussian, reproducible, the same for any number of threads, never the same values twice.

Statistical tests run with fixed seeds; the probability stated with each is that of failing with another seed.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from defenses import GaussianNoise, ParamNet, Stream, drawing_from, has_shared_draws, is_random
from defenses.randomness import LANES, normal_like, uniform_like

SMALL, LARGE = 1000, 1 << 18  # below and above the size from which threads share the work
CPU = torch.device("cpu")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(stream: Stream, *shape: int) -> Tensor:
    with drawing_from(stream):
        return normal_like(torch.empty(shape))


def test_threaded_draws_are_standard_normal() -> None:
    values = draw(Stream(1), LARGE).double().numpy()
    # Each with an error probability of at most 1e-6; the bounds of the moments are five standard errors.
    assert stats.kstest(values, "norm").pvalue > 1e-6
    assert abs(values.mean()) < 5 / LARGE**0.5
    assert abs(values.var() - 1) < 5 * (2 / LARGE) ** 0.5
    assert abs((values**3).mean()) < 5 * (15 / LARGE) ** 0.5
    assert abs((values**4).mean() - 3) < 5 * (96 / LARGE) ** 0.5


def test_every_lane_is_standard_normal_and_no_two_are_correlated() -> None:
    lanes = draw(Stream(1), LARGE).view(LANES, -1).double().numpy()
    size = LARGE // LANES
    # 8 tests and 28 pairs, together an error probability of 3e-5.
    assert min(stats.kstest(lane, "norm").pvalue for lane in lanes) > 1e-6
    correlations = np.corrcoef(lanes)[np.triu_indices(LANES, 1)]
    assert np.abs(correlations).max() < 5 / size**0.5


def test_neighbouring_values_are_uncorrelated() -> None:
    values = draw(Stream(1), LARGE).double()
    # 64 lags at five standard errors: error probability 4e-5.
    for lag in range(1, 65):
        assert abs((values[:-lag] * values[lag:]).mean()) < 5 / LARGE**0.5


def test_no_value_is_used_twice() -> None:
    family = [Stream.named(0, "train", index=step) for step in range(3)]
    draws = [draw(stream, LARGE) for stream in family] + [draw(family[0], LARGE)]
    # Single float32 values meet by chance; four in a row meet with a probability below 1e-9, even among a million.
    bits = torch.cat(draws).numpy().view(np.uint32)
    rows = np.lib.stride_tricks.sliding_window_view(bits, 4).copy().view("V16").ravel()
    assert len(np.unique(rows)) == len(rows)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_values_do_not_depend_on_the_number_of_threads(size: int, threads: None) -> None:
    draws = []
    for count in (1, 2, 3, 4, 16):
        torch.set_num_threads(count)
        stream = Stream(7)
        draws.append(torch.cat([draw(stream, size), draw(stream, size + 5)]))
    assert all(torch.equal(draws[0], other) for other in draws)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_seed_gives_its_draws_again_and_another_seed_others(size: int) -> None:
    first = draw(Stream(3), size)
    assert torch.equal(first, draw(Stream(3), size))
    assert not torch.equal(first, draw(Stream(4), size))


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_stream_entered_again_goes_on(size: int) -> None:
    with drawing_from(Stream(3)):
        whole = [normal_like(torch.empty(size)) for _ in range(2)]
    stream = Stream(3)
    assert torch.equal(draw(stream, size), whole[0])
    assert torch.equal(draw(stream, size), whole[1])
    assert not torch.equal(whole[0], whole[1])


def test_the_inner_of_two_streams_counts_and_the_outer_one_waits() -> None:
    outer, inner = Stream(1), Stream(2)
    expected = [draw(outer, SMALL), draw(inner, SMALL), draw(outer, SMALL)]
    with drawing_from(Stream(1)):
        first = normal_like(torch.empty(SMALL))
        with drawing_from(Stream(2)):
            between = normal_like(torch.empty(SMALL))
        last = normal_like(torch.empty(SMALL))
    assert all(map(torch.equal, [first, between, last], expected))
    assert not torch.equal(first, last)


def test_a_stream_ends_with_its_block_even_if_the_block_raises() -> None:
    with pytest.raises(RuntimeError, match="stop"), drawing_from(Stream(1)):
        raise RuntimeError("stop")
    torch.manual_seed(5)
    outside = normal_like(torch.empty(SMALL))
    torch.manual_seed(5)
    assert torch.equal(outside, torch.empty(SMALL).normal_())


def test_inside_a_stream_the_default_generator_does_not_move() -> None:
    before = torch.get_rng_state()
    with drawing_from(Stream(1)):
        normal_like(torch.empty(SMALL))
        normal_like(torch.empty(LARGE))
        uniform_like(torch.empty(SMALL))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("index", [0, (1 << 29) - 2000], ids=["first", "across 2^32"])
def test_streams_of_a_family_share_no_generator(index: int) -> None:
    family = [Stream.named(0, "judge", index=step) for step in range(index, index + 2000)]
    seeds = [stream.generator(CPU, lane).initial_seed() for stream in family for lane in range(LANES)]
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) <= max(seeds) < 1 << 32  # more bits would be ignored


def test_names_give_streams_of_their_own() -> None:
    keys = [(0, "attack"), (0, "judge"), (1, "attack"), ("0", "attack"), (0, "at", "tack"), (0,)]
    assert len({Stream.named(*key).seed for key in keys}) == len(keys)
    assert Stream.named(0, "attack").seed == Stream.named(0, "attack", index=0).seed


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (8, 32, 32, 32)], ids=["small", "threaded"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_draws_are_like_their_model(
    shape: tuple[int, ...], memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    x = torch.empty(shape, dtype=dtype, requires_grad=True).contiguous(memory_format=memory_format)
    with drawing_from(Stream(0)):
        draws = normal_like(x)
    assert (draws.shape, draws.stride(), draws.dtype) == (x.shape, x.stride(), dtype)
    assert not draws.requires_grad
    # Every element was filled: more than five standard errors, error probability 6e-7.
    assert abs(draws.double().std() - 1) < 5 / (2 * draws.numel()) ** 0.5


def test_views_with_gaps_and_repeats_are_filled_without_touching_their_neighbours() -> None:
    base = torch.zeros(6, 8)
    for view in (base[:, ::2], base[1:3].t(), base[0].expand(5, 8)):
        draws = draw_like(view)
        assert draws.shape == view.shape
        assert draws.unique().numel() == draws.numel()
    assert not base.any()


def draw_like(x: Tensor) -> Tensor:
    with drawing_from(Stream(0)):
        return normal_like(x)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_inference_mode_changes_nothing(size: int) -> None:
    expected = draw(Stream(2), size)
    with torch.inference_mode():
        inside = draw(Stream(2), size)
    assert torch.equal(inside, expected)
    assert not inside.is_inference()  # a draw may end in a graph


def test_uniform_draws_are_uniform_and_reproducible() -> None:
    with drawing_from(Stream(1)):
        values = uniform_like(torch.empty(20_000))
    with drawing_from(Stream(1)):
        assert torch.equal(uniform_like(torch.empty(20_000)), values)
    assert 0 <= values.min() <= values.max() < 1
    assert stats.kstest(values.double().numpy(), "uniform").pvalue > 1e-6  # error probability 1e-6


class Answering:
    """A callable that is no module and says about itself what it is."""

    random = shared = True


def test_models_say_whether_they_are_random_and_whether_a_batch_shares_a_draw() -> None:
    linear = nn.Linear(2, 2)
    assert (is_random(linear), has_shared_draws(linear)) == (False, False)
    loud = nn.Sequential(GaussianNoise(0.1), nn.Linear(2, 2))
    assert (is_random(loud), has_shared_draws(loud)) == (True, False)
    quiet = nn.Sequential(GaussianNoise(0), ParamNet(nn.Linear(2, 2), std=0))
    assert (is_random(quiet), has_shared_draws(quiet)) == (False, False)
    wrapped = nn.Sequential(loud, ParamNet(nn.Linear(2, 2)))
    assert (is_random(wrapped), has_shared_draws(wrapped)) == (True, True)
    assert (is_random(Answering()), has_shared_draws(Answering())) == (True, True)
    assert (is_random(torch.relu), has_shared_draws(torch.relu)) == (False, False)
