"""Less talk: what Lightning says at every run and no user can act on."""

import logging
import warnings

# Each is a regular expression for the beginning of a warning, with the reason why it says nothing to the user.
_SILENCED = (
    # Lightning 2.6.6 calls it on every batch; torch 2.15 deprecates it.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # --data.val_images 0 is a choice.
    r"Total length of `\w+` across ranks is zero",
    # Images held in memory need no workers.
    r"The '\w+' does not have many workers",
    # Small data sets; every epoch is logged in any case.
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    # A run that goes on does so in its own folder.
    r"Checkpoint directory .* exists and is not empty",
    # A run folder was moved or copied: its best checkpoint is found again with the next better one.
    r"The dirpath has changed from",
)


def hush() -> None:
    """Leave out the warnings above and all that is no warning ("GPU available", "Seed set to 0", product tips)."""
    # Not the levels of Lightning's loggers: its import, which comes later, sets those.
    logging.disable(logging.INFO)
    for message in _SILENCED:
        warnings.filterwarnings("ignore", message)
