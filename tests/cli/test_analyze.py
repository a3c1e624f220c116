"""analyze.py: what it prints is what it wrote, it goes on where it stopped, and mistakes end in one line."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import analysis.certified
import cli.analyze
from analysis.noise_guide import noise_guide, table
from attacks import Voted
from cli.names import ROOT, recipes, resolve
from cli.targets import from_run
from defenses import Defended, Gauss
from evaluation import smoothing, wilson
from models import ResNet20
from tests.cli.conftest import Outcome

Analyze = Callable[..., Outcome]

SMALL = ("--std", "0.1", "--n0", "5", "--samples", "30", "--images", "6", "--trainer.accelerator", "cpu")


@pytest.fixture
def analyze(capsys: pytest.CaptureFixture[str]) -> Analyze:
    """analyze.py with these words."""

    def run(*words: str | Path) -> Outcome:
        capsys.readouterr()
        return Outcome(cli.analyze.main([str(word) for word in words]), *capsys.readouterr())

    return run


def rows_in(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "certificates.jsonl").read_text().splitlines()]


def test_the_table_is_that_of_the_rows(analyze: Analyze, trained: Path) -> None:
    outcome = analyze("certify", trained, *SMALL)
    assert (outcome.code, outcome.err) == (0, "")
    (folder,) = trained.glob("evaluations/certify_test_std0.1_*")
    rows = rows_in(folder)
    assert [row["index"] for row in rows] == list(range(6))
    right = [row for row in rows if row["predicted"] == row["label"]]
    assert all((row["predicted"] == -1) == (row["radius"] == 0) for row in rows)
    low, high = wilson(len(right), 6)
    lines = [line.split() for line in outcome.out.splitlines()]
    (line,) = [line for line in lines if line[:1] == ["0"]]
    assert line == [
        "0",
        f"{100 * len(right) / 6:.2f}",
        f"[{100 * low:.2f},",
        f"{100 * high:.2f}]",
        *f"{len(right)} / 6".split(),
    ]
    abstained = sum(row["predicted"] == -1 for row in rows)
    assert f"abstained: {abstained} of 6; largest radius with 30 samples: 0.082" in outcome.out
    results = json.loads((folder / "results.json").read_text())
    assert (results["images"], results["abstained"], results["curve"][0]["correct"]) == (6, abstained, len(right))
    assert "<svg" in (folder / "certified.svg").read_text()
    assert outcome.out.splitlines()[-1].endswith("--samples 300")


def test_a_certificate_is_that_of_the_library(analyze: Analyze, trained: Path) -> None:
    assert analyze("certify", trained, *SMALL, "--seed", "3", "--out", "here").code == 0
    target = from_run(trained / "checkpoints" / "best.ckpt", resolve([]))
    pixels, labels = target.cli.datamodule.split("test")[list(range(6))]
    x = (pixels.float() / 255).contiguous(memory_format=torch.channels_last)
    network = target.network.to(memory_format=torch.channels_last)
    certificates = smoothing.certify(network, x, smoothing.Smoothing(0.1, 5, 30), seed=3, most_images=250)
    for row, label, certificate in zip(rows_in(Path("here")), labels.tolist(), certificates, strict=True):
        assert {**certificate._asdict(), "label": label}.items() <= row.items()


def test_the_same_command_goes_on(analyze: Analyze, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("certify", trained, *SMALL, "--out", "killed")
    whole = analyze("certify", trained, *SMALL, "--out", "whole")
    done: list[int] = []

    def counting(network: object, x: Tensor, how: object, seed: int, first: int, most: int) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(first)
        return certify(network, x, how, seed, first, most)

    certify = smoothing.certify
    monkeypatch.setattr(smoothing, "certify", counting)
    assert analyze(*words).code == 130
    file = Path("killed/certificates.jsonl")
    with file.open("a") as rows:
        rows.write('{"index": 2, "lab')  # killed while it wrote
    done[:] = []
    assert analyze(*words).code == 130
    assert done == [2, 3]
    monkeypatch.setattr(smoothing, "certify", certify)
    outcome = analyze(*words)
    assert outcome.code == 0
    assert file.read_bytes() == Path("whole/certificates.jsonl").read_bytes()
    assert table_of(outcome.out) == table_of(whole.out)


def table_of(printed: str) -> list[str]:
    lines = printed.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("L2 radius")) : -4]


def test_more_images_go_on_from_fewer(analyze: Analyze, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert analyze("certify", trained, *SMALL).code == 0
    first = analyze("certify", trained, *SMALL, "--images", "8")
    assert "8/8 certified images" in first.out
    monkeypatch.setattr(smoothing, "certify", None)
    again = analyze("certify", trained, *SMALL, "--images", "6")
    assert (again.code, again.err) == (0, "")
    assert "n = 6" in again.out


def test_a_damaged_line_is_done_again(analyze: Analyze, trained: Path) -> None:
    words = ("certify", trained, *SMALL, "--out", "here")
    assert analyze(*words).code == 0
    file = Path("here/certificates.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:3], "nonsense\n", *lines[4:]]))
    outcome = analyze(*words)
    assert outcome.code == 0
    assert outcome.err == "here/certificates.jsonl: was damaged and is mended\n"
    assert sorted(file.read_text().splitlines(keepends=True)) == sorted(lines)


def test_a_network_with_gaussian_noise_is_smoothed_with_that(analyze: Analyze, train: Analyze, tmp_path: Path) -> None:
    assert train("--model", "gauss_augmented").code == 0
    (run,) = tmp_path.glob("runs/gauss_augmented/*")
    outcome = analyze("certify", run, *SMALL[2:])
    assert (outcome.code, outcome.err) == (0, "")
    assert "noise 0.25, 5 + 30 samples" in outcome.out
    outcome = analyze("certify", run, *SMALL)
    assert "noise 0.1, 5 + 30 samples" in outcome.out


def test_smoothadv_trains_on_what_it_smooths_with(train: Analyze, analyze: Analyze, tmp_path: Path) -> None:
    outcome = train("--model", "smoothadv", "--model.attack.attack.steps", "1", "--model.warmup_epochs", "0")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = tmp_path.glob("runs/smoothadv/*")
    assert "noise 0.25" in analyze("certify", run, *SMALL[2:]).out
    target = from_run(run / "checkpoints" / "best.ckpt", resolve([]))
    assert isinstance(target.network, Defended)
    assert [channel.std for channel in target.network.channels if isinstance(channel, Gauss)] == [0.25]
    attack = target.cli.model.attack
    assert (attack.view, attack.ball.eps, attack.attack.step_size) == (Voted(4), 64 / 255, 64 / 255)


def test_published_weights(analyze: Analyze, tmp_path: Path) -> None:
    save_file(ResNet20(in_channels=1).state_dict(), "weights.safetensors")
    words = ("--weights", "weights.safetensors", "--model", "plain", "--data", "Digits", "--split", "val")
    outcome = analyze("certify", *words, "--data.val_images", "16", *SMALL)
    assert (outcome.code, outcome.err) == (0, "")
    assert list(tmp_path.glob("runs/weights/weights/evaluations/certify_val_std0.1_*/certified.svg"))


def test_learned_noise_is_drawn_and_printed(analyze: Analyze, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "noise/conv1": 0.5}\n{"step": 9, "noise/conv1": 0.05}\n')
    outcome = analyze("noise-levels", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert ["conv1", "0.5000", "0.05000", "0.1000"] in [line.split() for line in outcome.out.splitlines()]
    assert (tmp_path / "noise_levels.svg").read_text().startswith("<?xml")
    for words, message in (
        ((), "one run folder"),
        ((tmp_path, "--x"), "no option"),
        ((tmp_path / "none",), "no metrics"),
    ):
        outcome = analyze("noise-levels", *words)
        assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
        assert message in outcome.err


def test_the_noise_guide_is_printed(analyze: Analyze, trained: Path) -> None:
    outcome = analyze("noise-guide", trained, "--images", "20", "--trainer.accelerator", "cpu")
    assert (outcome.code, outcome.err) == (0, "")
    target = from_run(trained / "checkpoints" / "best.ckpt", resolve([]))
    pixels, _ = target.cli.datamodule.split("test")[list(range(20))]
    rows = noise_guide(target.network, pixels.float() / 255)
    assert len(rows) >= 19
    assert table(rows) in outcome.out
    assert "Digits test, n = 20" in outcome.out


WRONG = {
    "certfy {run}": ["certfy", "certify?"],
    "certify": ["one run folder", "--weights"],
    "certify nope": ["nope", "no such run folder"],
    "certify {run} another": ["one run folder"],
    "certify {run}": ["--std is missing", "Gauss"],
    "certify {run} --std x": ["--std", "'x'"],
    "certify {run} --std 0": ["std", "> 0", "0"],
    "certify {run} --std 0.1 --n0 0": ["--n0", ">= 1", "'0'"],
    "certify {run} --std 0.1 --samples 1.5": ["--samples", "whole number", "'1.5'"],
    "certify {run} --std 0.1 --samples 9": ["samples", "at least 10", "alpha 0.001", "9"],
    "certify {run} --std 0.1 --alpha 1": ["alpha", "(0, 1)", "1.0"],
    "certify {run} --std 0.1 --alpha 0": ["alpha", "(0, 1)", "0.0"],
    "certify {run} --std 0.1 --images 361": ["--images 361", "360 images"],
    "certify {run} --std 0.1 --split foo": ["--split", "test, val or train", "'foo'"],
    "certify {run} --std 0.1 --seed x": ["--seed", "'x'"],
    "certify {run} --std 0.1 --out file/x": ["--out", "file/x", "not a directory"],
    "certify {run} --std 0.1 --out other": ["other/manifest.json", "another command"],
    "certify {run} --foo 3": ["foo"],
    "certify --weights weights.pth": ["--weights needs --model"],
    "noise-guide {run} --std 0.1": ["std"],
    "certify {run} --std 0.1 --trainer.devices 2": ["--trainer.devices 2", "certify runs on one device"],
    "noise-guide {run} --trainer.num_nodes 2": ["--trainer.num_nodes 2", "noise-guide runs on one device"],
    "noise-guide {run} --images 0": ["--images", ">= 1", "'0'"],
}


@pytest.mark.parametrize("words", WRONG)
def test_a_mistake_ends_in_one_line(words: str, analyze: Analyze, trained: Path) -> None:
    Path("file").write_text("")
    Path("other").mkdir()
    Path("other/manifest.json").write_text("{}")
    outcome = analyze(*shlex.split(words.format(run=trained)))
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
    assert [word for word in WRONG[words] if word not in outcome.err] == [], outcome.err


def test_divergence_is_said(analyze: Analyze, trained: Path) -> None:
    path = trained / "checkpoints" / "best.ckpt"
    content = torch.load(path)
    content["state_dict"] = {
        key: value * float("nan") if value.is_floating_point() else value
        for key, value in content["state_dict"].items()
    }
    torch.save(content, path)
    outcome = analyze("certify", trained, *SMALL)
    assert outcome.code == 1
    assert outcome.err == "error: the model answers NaN or infinity; its weights are no use (did training diverge?)\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["certify", "-h"]])
def test_help(words: list[str], analyze: Analyze) -> None:
    outcome = analyze(*words)
    assert (outcome.code, outcome.err) == (0, "")
    assert len(outcome.out.splitlines()) <= 60
    assert {name for name in recipes() if name not in outcome.out} == set()


def test_answers_come_without_torch(tmp_path: Path) -> None:
    code = """
import sys, cli.analyze
codes = [cli.analyze.main(words.split()) for words in ("--help", "x", "certify nope", "certify nope --std x")]
print(codes, "torch" in sys.modules)
"""
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.splitlines()[-1] == "[0, 2, 2, 2] False", done.stderr


def test_the_program_itself(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / "analyze.py", "x"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown analysis 'x'")


def test_several_runs_in_one_figure(
    analyze: Analyze, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in "12":
        assert analyze("certify", trained, *SMALL, "--seed", seed, "--out", f"seed{seed}").code == 0
    monkeypatch.setattr(sys, "argv", ["certified", "seed1", "seed2", "both.svg"])
    assert analysis.certified.main() == 0
    assert capsys.readouterr().out == "wrote both.svg\n"
    drawing = analysis.certified.figure({name: analysis.certified.read(Path(name)) for name in ("seed1", "seed2")})
    assert [line.get_label() for line in drawing.axes[0].lines] == ["seed1, n = 6", "seed2, n = 6"]
    monkeypatch.setattr(sys, "argv", ["certified", "nope", "both.svg"])
    assert analysis.certified.main() == 2
    assert capsys.readouterr().err == "error: nope/certificates.jsonl: no such file\n"
