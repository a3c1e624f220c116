"""What an experiment about rising attacks is made of: attacks of several strengths, defenses, panels of a figure."""

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from attacks import Attack
from defenses import Channel, GaussianNoise, ParamNet, RobustNet
from papers.bench import Bench, Network
from papers.curve import Axis


@dataclass(frozen=True)
class Sweep:
    """One attack at several strengths.

    Args:
        attack: all but its strength.
        setting: which of its settings is the strength; with dots for a setting of a setting, "ball.eps".
        values: of that setting, ascending.
        shown: the strengths as the papers count them, as many; None: `values`.
        clean: whether strength 0 is nobody's attack; else what the attack does at 0, if 0 is among the values.
        at_most: images, where the attack is slow.
    """

    attack: Attack
    setting: str
    values: list[float]
    shown: list[float] | None = None
    clean: bool = True
    at_most: int = 1_000_000

    def __post_init__(self) -> None:
        if not self.values or sorted(self.values) != self.values:
            raise ValueError(f"values must be ascending, at least one; got {self.values}")
        if self.shown is not None and len(self.shown) != len(self.values):
            raise ValueError(f"shown needs as many strengths as values: {len(self.shown)} and {len(self.values)}")
        if self.clean and min(self.values[0], (self.shown or self.values)[0]) <= 0:
            raise ValueError(f"values of 0 or less beside the clean images at 0: {self.values}")
        _with(self.attack, self.setting, self.values[0])  # refuses an unknown setting

    def attacks(self) -> dict[float, Attack | None]:
        """Strength as shown -> the attack, None for nobody's."""
        strong = {
            strength: _with(self.attack, self.setting, value)
            for strength, value in zip(self.shown or self.values, self.values, strict=True)
        }
        return {0.0: None, **strong} if self.clean else dict(strong)


def _with(part: Any, setting: str, value: float) -> Any:
    name, _, rest = setting.partition(".")
    if name not in {each.name for each in dataclasses.fields(part)}:
        raise ValueError(f"{type(part).__name__} has no setting {name}")
    before = getattr(part, name)
    # YAML's numbers arrive as float, and a count of steps must be whole.
    after = _with(before, rest, value) if rest else int(value) if isinstance(before, int) else value
    return dataclasses.replace(part, **{name: after})


@dataclass(frozen=True)
class Defense:
    """A network with what is put around it at test time.

    Args:
        network: its name; "run:RECIPE" for one trained here.
        channels: in front of it.
        parameter_noise: standard deviation of noise on all parameters (ParamNet), for a network that has none; 0: none.
        feature_noise: standard deviations before the first and before every other convolution (RobustNet), likewise.
    """

    network: str
    channels: list[Channel] = field(default_factory=list)
    parameter_noise: float = 0.0
    feature_noise: tuple[float, float] | None = None

    def on(self, bench: Bench) -> Network:
        """The defense, ready to be asked.

        Raises:
            MissingNetwork: there is no such network yet.
        """
        bare = bench.network(self.network)
        if self.parameter_noise:
            noisy = ParamNet(copy.deepcopy(bare.module), self.parameter_noise).to(bench.device)
            bare = Network.of(f"{bare.name} with parameter noise {self.parameter_noise:g}", noisy)
        if self.feature_noise:
            init, inner = self.feature_noise
            noise = GaussianNoise(init), GaussianNoise(inner)
            robust = RobustNet(copy.deepcopy(bare.module), *noise).to(bench.device)
            bare = Network.of(f"{bare.name} with feature noise {init:g}/{inner:g}", robust)
        return bare.behind(self.channels)


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Args:
        sweep: name of the attack.
        axis: what accuracy is drawn against, see `Axis`.
        label: of that axis.
        defenses: names; empty: all.
        made_on: name of the defense that the images are made on for all of them (non-adaptive); empty: each on itself.
        log: logarithmic axis (linear around 0).
    """

    sweep: str
    axis: Axis = "strength"
    label: str = ""
    defenses: list[str] = field(default_factory=list)
    made_on: str = ""
    log: bool = False
