"""A run that starts from weights is trained from those and says so; weights that do not fit leave nothing behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models import ResNet20
from tests.cli.conftest import Outcome

STILL = ("--model.schedule.lr", "1e-30")  # learns nothing: what is saved is what it started from


def saved(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name.endswith(("conv1.weight", "linear.weight"))}


def only_run(recipe: str) -> Path:
    (folder,) = Path("runs", recipe).iterdir()
    return folder


def test_a_run_starts_from_published_weights_and_another_from_its_checkpoint(train: Callable[..., Outcome]) -> None:
    torch.manual_seed(5)
    published = ResNet20(num_classes=10, in_channels=1).state_dict()
    save_file(published, "published.safetensors")
    assert train("--model", "plain", "--weights", "published.safetensors", *STILL).code == 0
    first = only_run("plain")
    for name, value in saved(first).items():
        torch.testing.assert_close(value, published[name.removeprefix("network.")], rtol=0, atol=0)
    comment = (first / "config.yaml").read_text().splitlines()[0]
    assert comment.startswith("# started from the weights of published.safetensors (SHA-256 "), comment

    checkpoint = first / "checkpoints" / "best.ckpt"
    assert train("--model", "bandlimited", "--weights", str(checkpoint), *STILL).code == 0
    for name, value in saved(only_run("bandlimited")).items():
        torch.testing.assert_close(value, published[name.removeprefix("network.network.")], rtol=0, atol=0)

    assert train("--model", "plain", "--ckpt_path", str(first), *STILL, "--trainer.max_epochs", "2").code == 0
    assert (first / "config.yaml").read_text().splitlines()[0] == comment


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--weights none.safetensors", "none.safetensors: no such file"),
        ("--weights small.safetensors", "small.safetensors does not fit ResNet20"),
        ("--weights broken.pt", "broken.pt: refused"),
        ("--weights small.safetensors --ckpt_path run", "give one of them"),
    ],
)
def test_weights_that_cannot_be_used_leave_nothing_behind(
    words: str, message: str, train: Callable[..., Outcome]
) -> None:
    save_file({"linear.weight": torch.zeros(10, 64)}, "small.safetensors")
    Path("broken.pt").write_bytes(b"no tensors")
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/checkpoints/last.ckpt").touch()
    outcome = train("--model", "plain", *words.split())
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("runs").exists()
