"""What --help says is short, complete and true, and costs no import of torch."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import yaml

import cli.evaluate
import cli.targets
import cli.train
from cli.names import ROOT, recipes, resolve, suites
from cli.parser import ConfiguredCLI

HELP = {"train": cli.train.HELP, "evaluate": cli.evaluate.HELP}


def examples(program):
    return re.findall(rf"^  python {program}\.py (.*)$", HELP[program], re.MULTILINE)


@pytest.mark.parametrize("words", [["--help"], ["-h"], [], ["--model", "plain", "--help"]])
@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_help_is_two_screens_with_all_names(program, words, capsys):
    main = {"train": cli.train.main, "evaluate": cli.evaluate.main}[program]
    assert main(words) == 0
    text, error = capsys.readouterr()
    assert error == ""
    assert len(text.splitlines()) <= 60
    assert max(map(len, text.splitlines())) <= 120 + len(", ".join(recipes()))
    names = {*recipes(), *(suites() if program == "evaluate" else ["CIFAR10", "SVHN", "MNIST", "ImageNet", "Digits"])}
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_answers_come_without_torch(tmp_path):
    """In one process: help and names that are misspelt."""
    commands = [
        ("train", ["--help"]),
        ("train", ["--model", "robusnet"]),
        ("train", ["--model", "plain", "--data", "CIFAR11"]),
        ("train", ["--model", "plain", "--seed", "x"]),
        ("train", ["--model", "plain", "--logger", "x"]),
        ("train", ["--model", "plain", "--ckpt_path", "nope"]),
        ("evaluate", ["--help"]),
        ("evaluate", ["nope"]),
        ("evaluate", ["nope", "--suite", "pgdd"]),
        ("evaluate", ["nope", "--eps", "x"]),
    ]
    code = f"""
import sys, cli.train, cli.evaluate
main = {{"train": cli.train.main, "evaluate": cli.evaluate.main}}
codes = [main[program](words) for program, words in {commands!r}]
print(codes, [name for name in ("torch", "pytorch_lightning", "jsonargparse", "wandb") if name in sys.modules])
"""
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.splitlines()[-1] == "[0, 2, 2, 2, 2, 2, 0, 2, 2, 2] []", done.stderr


@pytest.mark.parametrize("example", examples("train"))
def test_training_examples_are_accepted(example):
    words = shlex.split(example)
    if "ddp" in words:
        words[words.index("2")] = "1"
    built = ConfiguredCLI(resolve(words, take=cli.train._TAKEN))
    assert built.model.network
    assert built.datamodule.num_classes == 10


def test_examples_mean_what_they_say():
    (eps,) = [example for example in examples("train") if "8/255" in example]
    built = ConfiguredCLI(resolve(shlex.split(eps)))
    assert built.model.attack.ball.eps == 8 / 255
    assert built.model.attack.steps == 20
    (std,) = [example for example in examples("train") if "init.std" in example]
    assert ConfiguredCLI(resolve(shlex.split(std))).model.network.noise_levels == {"init": 0.2, "inner": 0.2}


@pytest.mark.parametrize("example", examples("evaluate"))
def test_evaluation_examples_are_accepted(example, trained, tmp_path, monkeypatch):
    reached = []
    monkeypatch.setattr("cli.evaluation.evaluate", lambda *arguments: reached.append(arguments))
    monkeypatch.setattr(cli.targets, "from_weights", lambda path, invocation: reached.append(invocation))
    run = r"runs/robustnet_adv/[\d_-]+/checkpoints/last\.ckpt|runs/robustnet_adv/[\d_-]+|\bRUN\b"
    words = shlex.split(re.sub(run, str(trained), example))
    assert cli.evaluate.main(words) == 0
    assert reached


ORDERS = [
    "--model robustnet_adv --model.attack.steps 3 --data Digits --data.batch_size 16 --model.attack.ball.eps 1/4",
    "--model.attack.ball.eps=1/4 --model.attack.steps=3 --data.batch_size=16 --data=digits --model=robustnet_adv",
    "--data.batch_size 16 --model.attack.steps 3 --model robustnet_adv --model.attack.ball.eps=.25 --data DIGITS",
]


def test_order_and_spelling_do_not_matter():
    built = [ConfiguredCLI(resolve(order.split())) for order in ORDERS]
    assert built[0].model.attack.steps == 3
    assert built[0].model.attack.ball.eps == 0.25
    assert built[0].datamodule.batch_size == 16
    assert len({cli.config_text() for cli in built}) == 1


def test_files_come_before_options_wherever_they_are(tmp_path):
    file = tmp_path / "more.yaml"
    file.write_text("model: {init_args: {attack: {init_args: {steps: 5, step_size: 1/8}}}}\ntrainer: {max_epochs: 9}")
    words = ["--model.attack.steps", "3", "--config", str(file), "--model", "robustnet_adv"]
    built = ConfiguredCLI(resolve(words))
    assert (built.model.attack.steps, built.model.attack.step_size) == (3, 0.125)
    assert built.config.trainer.max_epochs == 9


def test_a_saved_configuration_makes_the_same_run(trained):
    built = ConfiguredCLI(resolve(["--model", "robustnet_adv", "--config", str(trained / "config.yaml")]))
    saved = yaml.safe_load((trained / "config.yaml").read_text())
    assert yaml.safe_load(built.config_text()) == saved


def test_fractions_in_files(tmp_path, evaluate, trained):
    recipe = (ROOT / "configs" / "models" / "robustnet_adv.yaml").read_text()
    file = tmp_path / "mine.yaml"
    file.write_text(recipe.replace("eps: 0.031", "eps: 8/255").replace("step_size: 0.01", "step_size: 2/255"))
    built = ConfiguredCLI(resolve(["--model", str(file)]))
    assert (built.model.attack.ball.eps, built.model.attack.step_size) == (8 / 255, 2 / 255)
    suite = tmp_path / "suite.yaml"
    suite.write_text("weak: {class_path: attacks.PGD, init_args: {ball: {class_path: attacks.Linf, "
                     "init_args: {eps: 4/255}}, step_size: 1/255, steps: 1}}")  # fmt: skip
    outcome = evaluate(trained, "--suite", suite, "--n", "4", "--draws", "1")
    assert outcome.code == 0, outcome
    assert "eps 4/255, step 1/255" in outcome.out


CLASSES = """
import torch
from datamodules import Digits
from lightning_modules import Classifier

class Net(torch.nn.Module):
    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: int = 4) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(in_channels, width, 3)
        self.linear = torch.nn.Linear(width, num_classes)
    def forward(self, x):
        return self.linear(self.conv(x).mean((2, 3)))

class Module(Classifier):
    def loss(self, x, y):
        return 2 * super().loss(x, y)

class Data(Digits):
    pass
"""


@pytest.mark.parametrize(
    "words",
    [
        "--model robustnet_adv --model.network.network mine.Net --model.network.network.width 5",
        "--model plain --model.network mine.Net",
        "--model plain --data mine.Data",
        "--model mine.Module --model.network mine.Net",
    ],
)
def test_classes_of_the_users_own(words, train, evaluate, tmp_path, monkeypatch):
    """In the current folder, which is not that of train.py."""
    (tmp_path / "mine.py").write_text(CLASSES)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    outcome = train(*words.split())
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    (run,) = tmp_path.glob("runs/*/*")
    outcome = evaluate(run, "--suite", "none", "--n", "4")
    assert outcome.code == 0, outcome
    (results,) = run.glob("evaluations/*/results.json")
    assert json.loads(results.read_text())
