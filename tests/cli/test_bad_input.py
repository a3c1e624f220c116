"""Every mistake ends in one line that says what was given and what is allowed, before or instead of work."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cli.names import ROOT
from lightning_modules import Classifier
from models import ResNet20

RECIPE = ["--model", "robustnet_adv"]

# Words after `--model robustnet_adv --data Digits ...`; what the line must hold.
TRAIN = {
    "--trainer.max_epochz 3": ["max_epochz", "trainer.max_epochs"],
    "--trainer.max_epoch 3": ["trainer.max_epoch", "trainer.max_epochs"],
    "--checkpoint.monitorr x": ["monitorr", "checkpoint.monitor"],
    "--foo 3": ["foo", "model", "trainer"],
    "foo": ["foo"],
    "--config": ["--config", "expected one argument"],
    "--config nope.yaml": ["nope.yaml", "no such file"],
    "--model.attack.stepz 3": ["--model.attack.stepz", "steps", "step_size"],
    "--model.network.innr.std 1": ["--model.network.innr.std", "inner"],
    "--model.schedule.lrr 1": ["--model.schedule.lrr", "schedule.lr"],
    "--model.attack.ball.epz 1": ["--model.attack.ball.epz", "eps"],
    "--model.network.network.stemm cifar": ["stemm", "known: ", "num_classes"],
    "--data.rot x": ["--data.rot", "root"],
    "--model.attack PGDD": ["--model.attack", "PGDD", "PGD?"],
    "--model.attack.ball L3": ["--model.attack.ball", "L3", "attacks"],
    "--model.network.network ResNet21": ["--model.network.network", "ResNet21", "ResNet20"],
    "--model.network.network models.ResNet21": ["ResNet21", "ResNet20"],
    "--model.network.network mine.Net": ["--model.network.network", "No module named 'mine'"],
    "--model.attack.steps abc": ["--model.attack.steps", "expected int", "'abc'"],
    "--model.attack.ball.eps 8/0": ["--model.attack.ball.eps", "expected float", "'8/0'"],
    "--model.target foo": ["--model.target", "prediction", "label", "'foo'"],
    "--trainer.max_epochs x": ["trainer.max_epochs", "expected int", "'x'"],
    "--trainer.precision foo": ["trainer.precision", "32-true", "'foo'"],
    "--data.batch_size 1.5": ["--data.batch_size", "expected int", "'1.5'"],
    "--model.attack.ball.eps -0.1": ["eps", ">= 0", "-0.1"],
    "--model.attack.steps -1": ["steps >= 0", "-1"],
    "--model.clean_weight 1": ["clean_weight", "[0, 1)", "1.0"],
    "--model.schedule.lr 0": ["lr > 0", "0.0"],
    "--model.network.init.std -1": ["std", ">= 0", "-1"],
    "--data.batch_size 0": ["batch_size", "at least 1", "0"],
    "--data.batch_size 5000": ["batch_size", "1 ... 1421", "5000"],
    "--data.val_images 5000": ["val_images", "0 ... 1436", "5000"],
    "--data.val_images -1": ["val_images", "at least 0", "-1"],
    "--data CIFAR10 --data.root nothing --data.download false": [
        "CIFAR10",
        "nothing",
        "--data.root",
        "download is off",
    ],
    "--data CIFAR100": ["CIFAR100", "CIFAR10?"],
    "--data mine.Data": ["data", "No module named 'mine'"],
    "--trainer.accelerator foo": ["foo", "cpu"],
    "--trainer.strategy foo": ["foo", "ddp"],
    "--trainer.max_epochs -1": ["--trainer.max_epochs", "--trainer.max_steps"],
    "--checkpoint.monitor foo": ["monitor='foo'", "val/robust"],
    "--seed x": ["--seed", "whole number", "'x'"],
    "--seed -1": ["--seed", ">= 0", "'-1'"],
    "--logger foo": ["--logger", "wandb or false", "'foo'"],
    "--save_every 0": ["--save_every", ">= 1", "'0'"],
    "--ckpt_path last": ["--ckpt_path last", "runs/robustnet_adv"],
    "--ckpt_path nope.ckpt": ["nope.ckpt", "no such"],
    "--run_dir file/x": ["--run_dir", "file/x", "not a directory"],
}
# All the words.
NAMES = {
    "--model robusnet_adv": ["robusnet_adv", "robustnet_adv", "configs/models"],
    "--model RobustNet_Adv": ["RobustNet_Adv", "robustnet_adv"],
    "--model zzz": ["zzz", "known: ", "robustnet_adv", "plain"],
    "--model nope.yaml": ["nope.yaml", "no such file"],
    "--model broken.yaml": ["broken.yaml", "no YAML"],
    "--model list.yaml": ["list.yaml", "list"],
    "--model steps.yaml": ["stepz", "steps"],
    "--model mine.Module": ["model", "No module named 'mine'"],
    "--model": ["no recipe given", "robustnet_adv"],
    "--data Digits": ["--model", "robustnet_adv"],
    "--data": ["no data set given", "CIFAR10"],
}
# Words after the folder of a run.
EVALUATE = {
    "--eps abc": ["--eps", "8/255", "'abc'"],
    "--eps -1": ["--eps", ">= 0", "'-1'"],
    "--eps nan": ["--eps", "'nan'"],
    "--n 0": ["--n", ">= 1", "'0'"],
    "--n 361": ["--n 361", "360 images"],
    "--draws 0": ["--draws", ">= 1", "'0'"],
    "--seed x": ["--seed", "'x'"],
    "--batch_size 0": ["--batch_size", ">= 1", "'0'"],
    "--split foo": ["--split", "test, val or train", "'foo'"],
    "--suite pgdd": ["pgdd", "pgd?", "configs/suites"],
    "--suite class.yaml": ["class.yaml", "PGDD", "PGD?"],
    "--suite option.yaml": ["option.yaml", "stepz", "steps"],
    "--suite value.yaml": ["value.yaml", "steps >= 0", "-7"],
    "--suite list.yaml": ["list.yaml", "list"],
    "--model.network.innr.std 1": ["innr", "inner"],
    "--foo 3": ["foo"],
    "another_run": ["one run folder"],
    "--weights some.safetensors --model plain": ["one run folder", "--weights"],
}
SOURCES = {
    "--n 8": ["one run folder", "--weights"],
    "nope": ["nope", "no such"],
    "empty": ["empty", "checkpoints/best.ckpt"],
    "truncated.ckpt": ["truncated.ckpt", "truncated"],
    "code.ckpt": ["code.ckpt", "code"],
    "pickle.ckpt": ["pickle.ckpt", "code"],
    "weights.pth": ["weights.pth", "--weights FILE --model RECIPE"],
    "without_config.ckpt": ["without_config.ckpt", "--model RECIPE"],
    "--weights weights.pth": ["--weights needs --model", "robustnet_adv"],
    "--weights nope.pth --model plain": ["nope.pth", "no such file"],
    "--weights random.safetensors --model plain": ["random.safetensors", "damaged"],
    "--weights random.pth --model plain": ["random.pth", "damaged"],
    "--weights code.ckpt --model plain": ["code.ckpt", "code"],
    "--weights weights.pth --model pni_w_adv --data Digits": ["weights.pth", "missing", "conv1.alpha_w"],
    "--weights weights.pth --model plain --data CIFAR10": ["weights.pth", "conv1.weight (16, 1, 3, 3)"],
    "--weights noisy.safetensors --model robustnet_adv --data Digits": [
        "noisy.safetensors",
        "init noise 0.2 (the model: 0.1)",
        "--model.network.init.std 0.2",
    ],
}  # fmt: skip
RESUMED = {
    "truncated.ckpt": ["truncated.ckpt", "truncated"],
    "code.ckpt": ["code.ckpt", "code"],
    "pickle.ckpt": ["pickle.ckpt", "code"],
    "random.pth": ["random.pth", "damaged"],
    "weights.pth": ["weights.pth", "no checkpoint"],
    "empty": ["empty", "checkpoints/last.ckpt"],
    "without_config.ckpt --model.network.network ResNet18": ["does not fit", "ResNet18", "conv1.weight"],
}


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.fixture
def files(tmp_path: Path, trained: Path) -> None:
    """Everything that the tables above name, in the current folder."""
    texts = {
        "file": "",
        "broken.yaml": "a: [1\nb",
        "list.yaml": "- 1",
        "steps.yaml": "model: {class_path: lightning_modules.AdversarialClassifier, init_args: {network: "
        "{class_path: models.ResNet20}, attack: {class_path: attacks.PGD, init_args: {stepz: 3}}}}",
        "class.yaml": "a: {class_path: attacks.PGDD}",
        "option.yaml": "a: {class_path: attacks.PGD, init_args: {stepz: 3}}",
        "value.yaml": "a: {class_path: attacks.PGD, init_args: {steps: -7}}",
    }
    for name, text in texts.items():
        Path(name).write_text(text)
    Path("empty").mkdir()
    last = trained / "checkpoints" / "last.ckpt"
    Path("truncated.ckpt").write_bytes(last.read_bytes()[:20000])
    content = torch.load(last)
    torch.save({**content, "extra": Code()}, "code.ckpt")
    Path("pickle.ckpt").write_bytes(pickle.dumps(Code()))
    torch.save({name: value for name, value in content.items() if name != "config"}, "without_config.ckpt")
    state = ResNet20(in_channels=1).state_dict()
    torch.save(state, "weights.pth")
    save_file(state, "noisy.safetensors", {"noise_init": "0.2", "noise_inner": "0.1"})
    for name in ("random.safetensors", "random.pth"):
        Path(name).write_bytes(bytes(range(7, 250)) * 4)


def check(outcome, words, code=2, started=False):
    assert outcome.code == code, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("\n")
    assert len(outcome.err) < 620
    assert [word for word in words if word not in outcome.err] == [], outcome.err
    assert not Path("executed").exists()
    assert started or not list(Path.cwd().glob("runs/*/*/checkpoints/last.ckpt"))


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("words", TRAIN)
def test_training(train, words):
    check(train(*RECIPE, *words.split()), TRAIN[words])


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("words", NAMES)
def test_names(train, words):
    outcome = train(*words.split(), defaults=[])
    check(outcome, NAMES[words])
    assert outcome.out == ""


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("words", EVALUATE)
def test_evaluation(evaluate, trained, words):
    outcome = evaluate(trained, *words.split())
    check(outcome, EVALUATE[words])
    assert outcome.out == ""
    assert not (trained / "evaluations").exists()


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("words", SOURCES)
def test_what_is_evaluated(evaluate, words):
    check(evaluate(*words.split()), SOURCES[words])


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("words", RESUMED)
def test_resuming(train, words):
    check(train(*RECIPE, "--ckpt_path", *words.split()), RESUMED[words])


def test_resuming_a_run_of_another_recipe(train, trained):
    outcome = train("--model", "pni_w_adv", "--ckpt_path", str(trained))
    check(outcome, [str(trained), "--model robustnet_adv", "pni_w_adv"])


def test_divergence_keeps_the_last_checkpoint(train, monkeypatch):
    words = ["--model", "plain", "--save_every", "1"]
    assert train(*words).code == 0
    (last,) = Path.cwd().glob("runs/*/*/checkpoints/last.ckpt")
    before = last.read_bytes()
    monkeypatch.setattr(Classifier, "loss", lambda self, x, y: self(x).sum() * float("nan"))
    outcome = train(*words, "--ckpt_path", "last", "--trainer.max_epochs", "3")
    check(outcome, ["loss became nan in epoch 2, step 3", "kept", "--model.schedule.lr"], code=1, started=True)
    assert last.read_bytes() == before


def test_divergence_in_a_new_run(train):
    outcome = train(*RECIPE, "--model.schedule.lr", "1e30", "--trainer.limit_train_batches", "4", "--save_every", "1")
    check(outcome, ["--model.schedule.lr"], code=1, started=True)
    for path in Path.cwd().glob("runs/*/*/checkpoints/*.ckpt"):
        assert all(value.isfinite().all() for value in torch.load(path)["state_dict"].values())


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
def test_the_programs_themselves(program, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / program, "--model", "robusnet_adv"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown recipe 'robusnet_adv'; did you mean robustnet_adv")
    assert done.stderr.count("\n") == 1
