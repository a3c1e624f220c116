"""Expectation over transformation: several draws of a random model in one answer (Athalye et al. 2018, 1707.07397)."""

import torch
from torch import Tensor

from attacks.shown import Divisible, Model, Piece, Wrapper
from defenses.randomness import has_shared_draws
from defenses.voting import in_parts


class EOT(Wrapper):
    """Images [B, C, H, W] -> logits [draws, B, classes] of independent draws; losses average over them.

    Draws of activations are copies of the images in one batch. A draw of weights serves a whole batch, copies would
    share it: there every draw is a pass of its own.

    Args:
        model: images -> logits [B, classes].
        draws: draws K that a gradient is averaged over, at least 1.
        votes: draws N that decide whether an image is broken; those beyond `draws` have no gradient (the papers' attack
            on voting models, EEPD figure 11). 0: as many as `draws`.
        most_images: most images in one pass, unless the batch itself is larger. With `input_gradient` memory never
            holds more than one pass.

    Raises:
        ValueError: `draws` or `most_images` is below 1, or `votes` is neither 0 nor at least `draws`.
    """

    def __init__(self, model: Model, draws: int, votes: int = 0, most_images: int = 256) -> None:
        super().__init__(model)
        if isinstance(model, Divisible):
            raise ValueError("EOT takes a model that answers one draw; this one answers several already")
        if draws < 1 or most_images < 1 or (votes and votes < draws):
            given = f"draws {draws}, votes {votes}, most_images {most_images}"
            raise ValueError(f"EOT takes draws >= 1, votes of 0 or >= draws, and most_images >= 1; got {given}")
        self.draws, self.votes, self.most_images = draws, votes, most_images
        self.one_by_one = has_shared_draws(model)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [max(draws, votes), B, classes]."""
        return torch.cat([piece.answer(x) for piece in self.pieces(len(x))])

    def pieces(self, batch: int) -> list[Piece]:
        """All draws, in passes of at most `most_images` images."""
        at_once = 1 if self.one_by_one else max(1, self.most_images // max(batch, 1))
        pieces = [Piece(self._answer(n), n) for n in in_parts(self.draws, at_once)]
        more = max(0, self.votes - self.draws)
        return pieces + [Piece(self._answer(n), n, differentiable=False) for n in in_parts(more, at_once)]

    def _answer(self, draws: int) -> Model:
        def answer(x: Tensor) -> Tensor:
            # Not `repeat`: it forgets that a batch is channels_last.
            logits = self.model(torch.cat([x] * draws) if draws > 1 else x)
            return logits.reshape(draws, len(x), logits.shape[-1])

        return answer
