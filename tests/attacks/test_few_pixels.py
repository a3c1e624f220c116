"""Few pixels: which may change, to what, and that the search goes where a linear model is most sensitive."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from attacks import EOT, CrossEntropy, Goal, Margin
from attacks.few_pixels import LocalSearch, MultiplePixels, SinglePixel
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, images

SHAPE = (3, 5, 6)


def changed(x_adv: Tensor, x: Tensor) -> Tensor:
    """[B, H, W], where any colour differs."""
    return (x_adv != x).any(1)


def test_the_worst_single_pixel_of_all_is_found() -> None:
    model, x = Linear(3, SHAPE), images(4, SHAPE)
    y = model(x).argmax(1)
    trace = SinglePixel(1000).run(model, x, y)
    losses = []
    for row in range(5):
        for column in range(6):
            for value in (0.0, 1.0):
                other = x.clone()
                other[:, :, row, column] = value
                losses.append(Margin()(model(other), Goal(y)))
    assert trace.queries.tolist() == [60] * 4  # each pixel once, both values
    torch.testing.assert_close(Margin()(model(trace.x_adv), Goal(y)), torch.stack(losses).amax(0))
    assert changed(trace.x_adv, x).sum((1, 2)).tolist() == [1] * 4


def test_single_pixels_are_tried_until_the_first_success() -> None:
    model, x = Linear(3, (3, 8, 8)), images(16, (3, 8, 8))
    with torch.no_grad():
        model.b[0] += 3  # too far from the boundary for some
    y = model(x).argmax(1)
    with drawing_from(Stream(0)):
        trace = SinglePixel(1000).run(model, x, y, first_success=True)
    broken = model(trace.x_adv).argmax(1) != y
    assert 0 < broken.sum() < 16
    assert (trace.queries[~broken] == 128).all()
    assert (trace.queries[broken] <= 128).all()


@pytest.mark.parametrize("pixels", [0, 1, 7, 30, 100])
def test_so_many_pixels_are_black_or_white(pixels: int) -> None:
    model, x = Linear(3, SHAPE), images(4, SHAPE)
    x_adv = MultiplePixels(pixels, 3)(model, x, model(x).argmax(1))
    where = changed(x_adv, x)
    assert where.sum((1, 2)).tolist() == [min(pixels, 30)] * 4
    values = x_adv.permute(0, 2, 3, 1)[where]
    assert ((values == 0) | (values == 1)).all()
    assert (values == values[:, :1]).all()  # all colours alike
    if pixels >= 7:
        assert {0.0, 1.0} == set(values.unique().tolist())


def test_a_random_model_keeps_the_largest_mean_loss() -> None:
    linear, x = Linear(3, SHAPE), images(4, SHAPE)
    y = linear(x).argmax(1)
    with drawing_from(Stream(0)):
        trace = MultiplePixels(10, 6).run(EOT(NoisyLinear(linear, 0.01), 50), x, y, first_success=True)
    assert trace.queries.tolist() == [300] * 4
    torch.testing.assert_close(trace.loss[-1], Margin()(linear(trace.x_adv), Goal(y)), rtol=0.05, atol=0.05)


def test_local_search_pushes_the_pixels_that_matter_most() -> None:
    """In the second round every pixel is asked about; what each probe does to the margin is computed here once more."""
    model, x = Linear(2, SHAPE), images(1, SHAPE)
    asked: list[Tensor] = []

    def far_from_the_boundary(batch: Tensor) -> Tensor:
        asked.append(batch)
        return model(batch) + torch.tensor([500.0, 0.0])

    attack = LocalSearch(rounds=2, t=4, d=30, loss=Margin())
    trace = attack.run(far_from_the_boundary, x, torch.tensor([0]))
    # The image, a tenth of its 30 pixels, what came of it, all 30 pixels, what came of it.
    assert [len(batch) for batch in asked] == [1, 3, 1, 30, 1]
    assert trace.queries.tolist() == [36]
    before, after = asked[2], asked[4]
    gains = []
    for pixel in range(30):
        probe = before.clone().flatten(2)
        probe[..., pixel] = 0.5 + 10 * (probe[..., pixel] - 0.5).sign()
        gains.append((model(probe) @ torch.tensor([-1.0, 1.0], dtype=x.dtype)).item())
    best = torch.tensor(gains).topk(4).indices
    assert changed(after, before).flatten().nonzero().squeeze(1).tolist() == sorted(best.tolist())
    torch.testing.assert_close(after.flatten(2)[..., best], attack._pushed(before.flatten(2)[..., best]))


def test_local_search_wraps_pixels_as_the_paper_does() -> None:
    x = torch.tensor([0.0, 0.1, 0.25, 0.4, 0.6, 0.9, 1.0]).view(1, 1, 1, 7)
    pushed = LocalSearch(r=1.5)._pushed(x)
    torch.testing.assert_close(pushed.flatten(), torch.tensor([0.75, 0.9, 0.125, 0.35, 0.65, 0.1, 0.25]))


def test_local_search_changes_neighbours_only() -> None:
    """t pixels a round, each within d of one of the round before."""
    model, x = Linear(2, (1, 12, 12)), images(1, (1, 12, 12))
    y = model(x).argmax(1)
    asked: list[Tensor] = []

    def stubborn(batch: Tensor) -> Tensor:
        asked.append(batch)
        logits = model(batch)
        return torch.stack([logits.sum(1), logits.sum(1) - 1], 1)

    attack = LocalSearch(rounds=4, t=2, d=1, r=1.5)
    attack(stubborn, x, torch.zeros_like(y))
    states = [x] + [batch for batch in asked[1:] if len(batch) == 1]
    for before, after in pairwise(states):
        assert (before != after).sum() <= 2
    assert len(states) == 5


def test_local_search_breaks_more_with_more_rounds_and_stays_in_the_cube() -> None:
    model, x = Linear(3, (3, 8, 8)), images(16, (3, 8, 8))
    y, broken = model(x).argmax(1), []
    for rounds in (0, 2, 10):
        with drawing_from(Stream(0)):
            x_adv = LocalSearch(rounds=rounds)(model, x, y)
        broken.append(int((model(x_adv).argmax(1) != y).sum()))
        assert 0 <= x_adv.min() <= x_adv.max() <= 1
    assert broken[0] == 0 < broken[1]
    assert broken[2] > 12


def test_local_search_asks_in_pieces_of_any_size() -> None:
    model, x = Linear(3, (3, 8, 8)), images(5, (3, 8, 8))
    y, results = model(x).argmax(1), []
    for most in (1, 7, 512):
        with drawing_from(Stream(0)):
            results.append(LocalSearch(rounds=3, most_images=most).run(model, x, y))
    for other in results[1:]:
        torch.testing.assert_close(other.x_adv, results[0].x_adv)
        assert torch.equal(other.queries, results[0].queries)


def test_local_search_on_a_random_model() -> None:
    linear, x = Linear(3, (3, 8, 8)), images(6, (3, 8, 8))
    y = linear(x).argmax(1)
    with drawing_from(Stream(0)):
        x_adv = LocalSearch(rounds=10)(EOT(NoisyLinear(linear, 0.01), 8), x, y)
    assert (linear(x_adv).argmax(1) != y).sum() >= 4


def test_an_image_that_is_wrong_already_comes_back() -> None:
    model, x = Linear(3, SHAPE), images(4, SHAPE)
    trace = LocalSearch(rounds=3).run(model, x, model(x).argmin(1))
    assert torch.equal(trace.x_adv, x)
    assert trace.queries.tolist() == [1] * 4


@pytest.mark.parametrize("attack", [SinglePixel, MultiplePixels, LocalSearch])
def test_impossible_settings_are_refused(attack: type) -> None:
    wrong = {SinglePixel: {"trials": -1}, MultiplePixels: {"pixels": -1}, LocalSearch: {"r": 2.0}}[attack]
    with pytest.raises(ValueError, match=f"^{attack.__name__} takes"):
        attack(**wrong)
    if attack is LocalSearch:
        with pytest.raises(ValueError, match="t, candidates and most_images >= 1"):
            LocalSearch(t=0, loss=CrossEntropy())
