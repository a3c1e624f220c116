"""The nearest of several results, image by image."""

import pytest
import torch

from attacks.closest import Closest
from attacks.ddn import DDN
from attacks.fmn import FMN
from tests.attacks.toys import Linear, distance, images


def test_each_image_gets_its_nearest() -> None:
    model, x = Linear(5), images(48)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 5  # wrong already
    both = FMN(steps=100), DDN(steps=100)
    trace = Closest(both).run(model, x, y)
    one, other = (attack.run(model, x, y) for attack in both)
    norms = torch.stack([distance(result.x_adv, x, "L2") for result in (one, other)])
    assert (norms[0] < norms[1]).any()
    assert (norms[0] > norms[1]).any()
    torch.testing.assert_close(distance(trace.x_adv, x, "L2"), norms.amin(0))
    assert torch.equal(trace.x_adv[0], x[0])
    assert torch.equal(trace.queries, one.queries + other.queries)
    assert trace.loss.shape == (200, 48)


def test_one_that_finds_nothing_does_not_count() -> None:
    model, x = Linear(2), images(4)
    y = model(x).argmax(1)
    assert torch.equal(Closest((DDN(steps=0), DDN()))(model, x, y), DDN()(model, x, y))


def test_a_list_will_do() -> None:
    assert hash(Closest([DDN()])) == hash(Closest((DDN(),)))  # type: ignore[arg-type]
    assert str(Closest()) == "closest of FMN-50 (L2, alpha 1, gamma 0.05) and DDN-50 (L2, gamma 0.05)"


@pytest.mark.parametrize("arguments", [{"attacks": ()}, {"norm": "L0"}])
def test_impossible_settings_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^Closest takes "):
        Closest(**arguments)  # type: ignore[arg-type]
