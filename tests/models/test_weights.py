"""Published weights: logits against a mapping by hand, and everything that does not fit is refused by name."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from defenses import GaussianNoise, ParamNet, PNIActivations, PNIWeights, RobustNet, Stream, drawing_from, silenced
from models import Normalized, ResNet20, load_tensors, load_weights, read_weights

CHECKPOINTS = Path(__file__).parents[3] / "shared" / "checkpoints"


def authors_names() -> dict[str, str]:
    """The layers of a ResNet-20: the authors' name of each -> ours."""
    names = {"conv_1_3x3": "conv1", "bn_1": "bn1", "classifier": "linear"}
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            for theirs, ours in (("a", "1"), ("b", "2")):
                for kind in ("conv", "bn"):
                    names[f"stage_{stage}.{block}.{kind}_{theirs}"] = f"layer{stage}.{block}.{kind}{ours}"
    return names


def reference() -> ResNet20:
    """A ResNet-20 with statistics that matter."""
    network = ResNet20()
    for bn in network.modules():
        if isinstance(bn, nn.BatchNorm2d):
            nn.init.normal_(bn.get_buffer("running_mean"), std=0.1)
            nn.init.uniform_(bn.get_buffer("running_var"), 0.5, 2)
            nn.init.uniform_(bn.weight, 0.5, 1.5)
            nn.init.normal_(bn.bias, std=0.1)
            bn.get_buffer("num_batches_tracked").fill_(7)
    return network.eval()


def theirs(network: nn.Module, alphas: str = "") -> dict[str, Tensor]:
    """The weights of a network in the authors' layout; `alphas` names one scalar for each layer with a weight."""
    back = {ours: name for name, ours in authors_names().items()}
    tensors = {}
    for key, value in network.state_dict().items():
        layer, _, name = key.rpartition(".")
        tensors[f"{back[layer]}.{name}"] = value.clone()
    if alphas:
        for index, name in enumerate(name for name in authors_names() if "bn" not in name):
            tensors[f"{name}.{alphas}"] = torch.tensor([0.01 * (index + 1)])
    return tensors


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16)


PLAIN: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda network: network,
    "RobustNet": RobustNet,
    "ParamNet": ParamNet,
    "Normalized": lambda network: Normalized(network, [0.5] * 3, [0.25] * 3),
    "RobustNet around Normalized": lambda network: RobustNet(Normalized(network, [0.5] * 3, [0.25] * 3)),
    "ParamNet around RobustNet": lambda network: ParamNet(RobustNet(network)),
}
every_wrapper = pytest.mark.parametrize("wrapper", PLAIN)
both_layouts = pytest.mark.parametrize("layout", ["authors", "ours"])


@every_wrapper
@both_layouts
def test_logits_are_those_of_the_source(wrapper: str, layout: str) -> None:
    source = reference()
    tensors = theirs(source) if layout == "authors" else source.state_dict()
    network = PLAIN[wrapper](ResNet20()).eval()
    load_weights(network, tensors, "file")
    x = images()
    with silenced():
        logits = network(x)
    assert torch.equal(logits, source((x - 0.5) / 0.25 if "Normalized" in wrapper else x))
    counters = [value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")]
    assert [int(counter) for counter in counters] == [7] * 19


def test_robustnet_answers_as_the_source_in_the_same_noise() -> None:
    source = reference()
    network = RobustNet(ResNet20(), GaussianNoise(0.1), GaussianNoise(0.0)).eval()
    load_weights(network, theirs(source), "file")
    x = images()
    with drawing_from(Stream(1)):
        logits = network(x)
    with drawing_from(Stream(1)):
        assert torch.equal(logits, source(GaussianNoise(0.1)(x)))


@pytest.mark.parametrize(
    ("defense", "alphas", "place"),
    [
        (PNIWeights, "alpha_w", "parametrizations.weight.0.alpha"),
        (PNIActivations, "alpha_i", "input_noise.alpha"),
    ],
)
def test_alphas_come_to_their_layers(defense: Callable[[nn.Module], nn.Module], alphas: str, place: str) -> None:
    source = reference()
    tensors = theirs(source, alphas)
    network = defense(ResNet20()).eval()
    load_weights(network, tensors, "file")
    for name, ours in authors_names().items():
        if "bn" not in name:
            alpha = network.get_parameter(f"network.{ours}.{place}")
            assert (alpha.shape, alpha.item()) == ((), tensors[f"{name}.{alphas}"].item())
    x = images()
    with silenced():
        assert torch.equal(network(x), source(x))


@pytest.mark.parametrize("defense", [RobustNet, PNIWeights, PNIActivations, ParamNet])
def test_every_defense_takes_its_own_state_dict(defense: Callable[[nn.Module], nn.Module]) -> None:
    source, network = defense(reference()).eval(), defense(ResNet20()).eval()
    load_weights(network, {f"module.{name}": value for name, value in source.state_dict().items()}, "file")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())


def test_counters_of_batches_may_be_missing() -> None:
    source, network = reference(), ResNet20().eval()
    tensors = {name: value for name, value in source.state_dict().items() if "num_batches" not in name}
    load_weights(network, tensors, "file")
    x = images()
    assert torch.equal(network(x), source(x))
    assert int(network.bn1.get_buffer("num_batches_tracked")) == 0


def refused(network: nn.Module, tensors: dict[str, Tensor]) -> str:
    """The message; the network must not have changed."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"^file does not fit ") as error:
        load_weights(network, tensors, "file")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


@both_layouts
def test_misfits_are_named(layout: str) -> None:
    source = reference()
    tensors = theirs(source) if layout == "authors" else dict(source.state_dict())
    bn, linear = ("bn_1", "classifier") if layout == "authors" else ("bn1", "linear")
    missing = {name: value for name, value in tensors.items() if name != f"{bn}.running_mean"}
    assert refused(ResNet20(), missing) == "file does not fit ResNet20: missing bn1.running_mean"
    extra = {**tensors, "head.weight": torch.zeros(3)}
    assert refused(ResNet20(), extra) == "file does not fit ResNet20: left over head.weight"
    wrong = {**tensors, f"{linear}.bias": torch.zeros(7)}
    assert refused(ResNet20(), wrong) == "file does not fit ResNet20: wrong shape linear.bias (7,) instead of (10,)"
    transposed = {**tensors, f"{linear}.weight": tensors[f"{linear}.weight"].T}
    assert "wrong shape linear.weight (64, 10) instead of (10, 64)" in refused(ResNet20(), transposed)


def test_all_misfits_are_told_at_once_and_long_lists_are_cut() -> None:
    message = refused(ResNet20(num_classes=7), {"linear.bias": torch.zeros(10), "a": torch.zeros(1)})
    assert "missing bn1.bias, bn1.running_mean, bn1.running_var, bn1.weight and 92 more; left over a; " in message
    assert message.endswith("wrong shape linear.bias (10,) instead of (7,)")


def test_weights_and_model_must_agree_on_pni() -> None:
    message = refused(PNIWeights(ResNet20()), theirs(reference()))
    assert message.startswith("file does not fit PNIWeights(ResNet20): missing conv1.alpha_w, ")
    assert "and 16 more" in message
    for network in (ResNet20(), RobustNet(ResNet20()), PNIActivations(ResNet20())):
        assert "left over conv1.alpha_w, " in refused(network, theirs(reference(), "alpha_w"))


def test_only_a_single_value_may_have_another_shape() -> None:
    tensors = {**reference().state_dict(), "bn1.bias": torch.zeros(1)}
    assert "wrong shape bn1.bias (1,) instead of (16,)" in refused(ResNet20(), tensors)


def write(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("nested", [True, False], ids=["checkpoint", "state_dict"])
def test_files_of_torch_save(zipped: bool, nested: bool, tmp_path: Path) -> None:
    source = reference()
    tensors = {f"module.{name}": value for name, value in theirs(source).items()}
    content = {"state_dict": tensors, "epoch": 144, "arch": "noise_resnet20_robust"} if nested else tensors
    path = write(tmp_path / "weights.pth.tar", content, _use_new_zipfile_serialization=zipped)
    weights = read_weights(path)
    assert weights.metadata == {}
    network = ResNet20().eval()
    load_weights(network, weights.tensors, str(path))
    x = images()
    assert torch.equal(network(x), source(x))


def test_safetensors_come_with_what_they_say_about_themselves(tmp_path: Path) -> None:
    tensors = theirs(reference())
    save_file(tensors, tmp_path / "w.safetensors", {"noise_init": "0.1"})
    weights = read_weights(tmp_path / "w.safetensors")
    assert weights.metadata == {"noise_init": "0.1"}
    assert weights.tensors.keys() == tensors.keys()
    assert all(torch.equal(weights.tensors[name], value) for name, value in tensors.items())
    save_file(tensors, tmp_path / "silent.safetensors")
    assert read_weights(tmp_path / "silent.safetensors").metadata == {}


class Intruder:
    """Would make a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_is_not_run(form: str, tmp_path: Path) -> None:
    content = {"state_dict": {"conv1.weight": torch.zeros(2), "evil": Intruder(tmp_path / "evil")}}
    path = tmp_path / "weights.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(content["state_dict"]["evil"]))
    else:
        write(path, content, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match="refused, it holds code or objects beside tensors") as error:
        read_weights(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "evil").exists()
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert (tmp_path / "evil").exists(), "the file is harmless and the test proves nothing"


@pytest.mark.parametrize("name", ["empty.pth", "text.pth", "noise.pth", "empty.safetensors", "noise.safetensors"])
def test_what_is_no_weights_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    contents = {"empty": b"", "text": b"no weights here\n" * 20, "noise": bytes(range(7, 256)) * 9}
    path.write_bytes(contents[path.stem])
    with pytest.raises(ValueError) as error:
        read_weights(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_no_truncated_file_passes(form: str, tmp_path: Path) -> None:
    tensors = {"a": torch.rand(50), "b": torch.rand(3, 4)}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(tensors, path)
    else:
        write(path, tensors, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    for size in range(0, len(data), 1 + len(data) // 150):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match="damaged") as error:
            read_weights(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3}, {"state_dict": {"a": 1}}, torch.zeros(3)])
def test_what_is_no_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "weights.pth", content)
    assert load_tensors(path) is not None
    with pytest.raises(ValueError, match=r"holds no state dict \(names -> tensors\)$"):
        read_weights(path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_missing_file_is_said_to_be_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file$"):
        read_weights(tmp_path / name)


def published(name: str) -> nn.Module:
    """The model that a checkpoint belongs to."""
    if "imagenet_norm" in name:
        return Normalized(ResNet20(zeros="around"), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    if "pni" in name:
        return PNIWeights(ResNet20())
    return RobustNet(ResNet20()) if "robustnet" in name else ResNet20()


RESNETS = [
    *(f"{data}_{kind}" for data in ("cifar10", "svhn") for kind in ("plain", "adv", "pni_w_adv", "robustnet")),
    "cifar10_robustnet_adv",
    "svhn_robustnet_adv",
    "cifar10_resnet20_imagenet_norm",
]


@pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason="no published checkpoints in ../shared")
@pytest.mark.parametrize("name", RESNETS)
def test_published_checkpoints_fit(name: str) -> None:
    path = CHECKPOINTS / f"{name}.safetensors"
    weights = read_weights(path)
    assert "resnet20" in weights.metadata["network"]
    network = published(name)
    load_weights(network, weights.tensors, str(path))
    first = weights.tensors["conv1.weight" if "imagenet" in name else "conv_1_3x3.weight"]
    ours = {key.replace("parametrizations.weight.original", "weight"): p for key, p in network.named_parameters()}
    assert any(torch.equal(p, first) for key, p in ours.items() if key.endswith("conv1.weight"))
    assert network.eval()(torch.rand(1, 3, 32, 32)).isfinite().all()
    other = PNIWeights(ResNet20()) if "pni" not in name else ResNet20()
    refused_by_name = "missing conv1.alpha_w" if "pni" not in name else "left over conv1.alpha_w"
    with pytest.raises(ValueError, match=refused_by_name):
        load_weights(other, weights.tensors, str(path))
