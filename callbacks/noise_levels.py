"""The learned strengths of noise over a training."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from defenses import Noise


class NoiseLevels(Callback):
    """Logs every learned strength of noise as `noise/LAYER`: |alpha| of PNI, |scale| of LearnedNoise.

    Before the first step and after each epoch; `python analyze.py noise-levels RUN` draws them.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where they begin; `log` would keep this for the end of the epoch."""
        if trainer.global_step == 0:
            levels = {f"noise/{layer}": float(strength) for layer, strength in learned_strengths(pl_module).items()}
            for logger in trainer.loggers:
                logger.log_metrics(levels, step=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log; all processes hold the same parameters, so nothing is to be averaged."""
        pl_module.log_dict({f"noise/{layer}": strength for layer, strength in learned_strengths(pl_module).items()})


def learned_strengths(network: nn.Module) -> dict[str, Tensor]:
    """The absolute value of each parameter of a `Noise` by the name of its layer, in order of definition.

    Names are those of the network itself, without wrappers: "layer1.0.conv1" for noise on the input of that layer or
    on its weight.
    """
    return {
        _layer(name): parameter.detach().abs()
        for name, part in network.named_modules()
        if isinstance(part, Noise)
        for parameter in part.parameters(recurse=False)
    }


def _layer(name: str) -> str:
    while name.startswith("network."):
        name = name.removeprefix("network.")
    return name.removesuffix(".input_noise").partition(".parametrizations.")[0]
