"""What a reader sees of a figure."""

import pytest

from papers.style import legend_below, panels


@pytest.mark.parametrize(("label", "columns"), [("A", 5), ("ParamNet 0.02 train+test", 3), (60 * "long", 1)])
def test_a_legend_below_is_as_wide_as_the_figure_at_most(label: str, columns: int) -> None:
    figure, axes = panels(1, 2, 4.2, 3.4)
    for place in range(11):
        axes[place % 2].plot([0, 1], label="printed" if place == 0 else f"{label} {place}")
    legend_below(figure, axes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][-1] == "printed"
    assert legend._ncols == columns
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert columns == 1 or (box.x0 >= 0 and box.x1 <= figure.bbox.width)
