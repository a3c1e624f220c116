"""What a panel shows, pixel by pixel."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from callbacks.panels import panel
from defenses import Brightness, ColourDepth, Defended, Gauss, ThermometerCode


def cell(grid: torch.Tensor, row: int, column: int, size: int = 64) -> torch.Tensor:
    """[size, size, 3]."""
    top, left = row * (size + 2), column * (size + 2)
    return grid[top : top + size, left : left + size]


def test_clean_attacked_and_their_difference() -> None:
    x = torch.rand(2, 3, 4, 4)
    x_adv = (x + torch.tensor([0.02, -0.04])[:, None, None, None]).clamp(-1, 2)
    drawn = panel(x, x_adv)
    assert drawn.columns == ("clean", "attacked", "difference x 12.5")
    assert drawn.grid.shape == (2 * 64 + 2, 3 * 64 + 2 * 2, 3)
    large = x.mul(255).round().to(torch.uint8).repeat_interleave(16, 2).repeat_interleave(16, 3)
    for row in (0, 1):
        assert torch.equal(cell(drawn.grid, row, 0), large[row].permute(1, 2, 0))
    # Half of the largest difference is a quarter of the range above mid-grey, the largest itself reaches black.
    assert (cell(drawn.grid, 0, 2).int() - 191).abs().max() <= 1
    assert cell(drawn.grid, 1, 2).max() <= 1
    assert (drawn.grid[64:66] == 255).all()


def test_a_column_behind_each_channel() -> None:
    x = torch.rand(2, 1, 8, 8)
    network = nn.Sequential(Defended(nn.Flatten(), [ColourDepth(bits=1), Gauss(0.1)]))
    drawn = panel(x, x, network)
    assert [name.partition("(")[0] for name in drawn.columns[3:]] == ["after ColourDepth", "after Gauss"]
    assert set(cell(drawn.grid, 0, 3).unique().tolist()) == {0, 255}
    assert len(cell(drawn.grid, 0, 4).unique()) > 10
    assert torch.equal(panel(x, x, network).grid, drawn.grid)
    assert not torch.equal(panel(x, x, network, seed=1).grid, drawn.grid)


def test_the_network_keeps_its_mode_and_the_random_stream_its_place() -> None:
    network = Defended(nn.Flatten(), [Gauss(0.1)]).train()
    before = torch.get_rng_state()
    panel(torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 1, 4, 4), network)
    assert network.training
    assert network.channels.training
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_no_image_ends_the_row() -> None:
    x = torch.rand(1, 3, 4, 4)
    network = Defended(nn.Flatten(), [ColourDepth(bits=1), ThermometerCode(levels=4), Brightness(1)])
    assert len(panel(x, x, network).columns) == 4


def test_equal_images_have_a_grey_difference() -> None:
    x = torch.rand(1, 1, 4, 4)
    assert set(cell(panel(x, x).grid, 0, 2).unique().tolist()) <= {127, 128}


def test_the_png_holds_the_grid() -> None:
    drawn = panel(torch.rand(2, 3, 80, 80), torch.rand(2, 3, 80, 80))
    assert drawn.grid.shape == (2 * 80 + 2, 3 * 80 + 4, 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(drawn.png()))), drawn.grid.numpy())


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (1, 2, 4, 4), (3, 4, 4)])
def test_what_cannot_be_drawn_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a panel needs two like batches"):
        panel(torch.zeros(shape), torch.zeros(shape))
