"""Every attack class of advertorch runs behind our signature, leaves no trace, and warns where it is wrong."""

import inspect
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import EOT, L2, PGD, Adversary, Linf, Oblivious
from attacks.advertorch import Advertorch, advertorch_attacks
from cli.names import UsageError
from cli.parser import read_suite
from defenses import Defended, Gauss, ParamNet, Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images

EXPORTED: dict[str, Any] = {
    name: thing
    for name, thing in vars(advertorch_attacks()).items()
    if inspect.isclass(thing) and issubclass(thing, advertorch_attacks().Attack) and name != "Attack"
}
# Few steps that still do something to the model below.
FEW = {"nb_iter": 4, "max_iterations": 30, "binary_search_steps": 3, "n_iter": 5, "round_ub": 2, "nb_sample": 16}
PARTS = [
    {"name": "LinfPGDAttack", "arguments": {"nb_iter": 3, "eps": 0.1}},
    {"name": "GradientSignAttack", "arguments": {"eps": 0.1}},
]
SPECIAL: dict[str, dict[str, Any]] = {
    "ChooseBestAttack": {"base_adversaries": PARTS},
    "L1PGDAttack": {"nb_iter": 4, "eps": 1.0, "eps_iter": 0.5},
}
# Cannot run behind our signature, with the reason that the user is told.
IMPOSSIBLE = {"FastFeatureAttack": "imitates a second image, which an attack is not given here"}
NO_TARGET = ("FABAttack", "LinfFABAttack", "L2FABAttack", "L1FABAttack")
MINIMAL_NORM = (
    *("CarliniWagnerL2Attack", "ElasticNetL1Attack", "DDNL2Attack", "LBFGSAttack", "SpatialTransformAttack"),
    *("SinglePixelAttack", "LocalSearchAttack", "JacobianSaliencyMapAttack", "JSMA", *NO_TARGET),
)
ALWAYS_WARN = ("ChooseBestAttack", "L1PGDAttack")
POSSIBLE = [name for name in EXPORTED if name not in IMPOSSIBLE]
every_class = pytest.mark.parametrize("name", POSSIBLE)
Y = torch.tensor([0, 1, 2, 3])


def made(name: str) -> Advertorch:
    taken = inspect.signature(EXPORTED[name]).parameters
    arguments = SPECIAL.get(name) or {key: value for key, value in FEW.items() if key in taken}
    if "eps" in taken and name not in NO_TARGET:
        arguments = {"eps": 0.1, **arguments}
    return Advertorch(name, arguments)


@contextmanager
def silent() -> Iterator[None]:
    """Our own warnings about a class are the subject of other tests; advertorch's must not come through."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "advertorch's ", UserWarning)
        yield


class Small(nn.Module):
    """Conv, BatchNorm, linear; labels are its answers."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            parts = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 25, 4)
            self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = 4 * self.layers(x)
        return logits


def batch(size: int = 3) -> tuple[Tensor, Tensor]:
    x = images(size, (2, 5, 5)).float()
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    with torch.no_grad():
        return x, Small().eval()(x).argmax(1)


def test_the_list_of_attacks_is_the_one_known() -> None:
    assert len(EXPORTED) == 30
    assert {"FGM", "FGSM", "JSMA"} < set(EXPORTED)  # second names


@every_class
@pytest.mark.parametrize(("targeted", "noisy"), [(False, False), (True, False), (False, True)])
def test_every_attack_runs(name: str, targeted: bool, noisy: bool) -> None:
    x, y = batch()
    x = x.contiguous(memory_format=torch.channels_last)
    before = x.clone()
    target = (y + 1) % 4 if targeted else None
    model = EOT(Defended(Small(), [Gauss(0.02)]), 2) if noisy else Small()
    with silent(), drawing_from(Stream(0)):
        if targeted and name in NO_TARGET:
            with pytest.raises(ValueError, match=f"advertorch's {name} knows no targets"):
                made(name).run(model, x, y, target)
            return
        trace = made(name).run(model, x, y, target)
    assert torch.equal(x, before)
    assert (trace.x_adv.shape, trace.x_adv.dtype, trace.x_adv.stride()) == (x.shape, x.dtype, x.stride())
    assert trace.x_adv.isfinite().all()
    assert 0 <= trace.x_adv.min() <= trace.x_adv.max() <= 1
    assert not (trace.x_adv == 0).flatten(1).all(1).any()
    assert not trace.x_adv.requires_grad
    assert trace.x_adv.data_ptr() != x.data_ptr()
    assert (trace.queries >= (4 if noisy else 2)).all()
    assert not trace.zero_gradient.any()


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_run_says_why(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} {IMPOSSIBLE[name]}"):
        Advertorch(name)


@every_class
def test_no_trace_is_left(name: str) -> None:
    """Neither on weights, nor on their hooks, nor on the global generators."""
    model, (x, y) = Small().train(), batch()
    model.layers[1].eval()
    calls = []
    for index, parameter in enumerate(model.parameters()):
        parameter.register_post_accumulate_grad_hook(calls.append)
        parameter.grad = torch.ones_like(parameter) if index % 2 else None
        parameter.requires_grad_(index % 3 > 0)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    grads = [(p.requires_grad, p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    modes = {key: part.training for key, part in model.named_modules()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    with torch.inference_mode(), silent(), drawing_from(Stream(0)):
        made(name).run(model, x.clone(), y.clone())
    assert not calls
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert all(map(np.array_equal, np.random.get_state(), numpy_state))
    assert {key: part.training for key, part in model.named_modules()} == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    for parameter, (flag, grad, value) in zip(model.parameters(), grads, strict=True):
        assert parameter.requires_grad == flag
        assert parameter.grad is grad
        assert grad is None or torch.equal(grad, value)


@pytest.mark.parametrize("name", ["SinglePixelAttack", "LocalSearchAttack"])
def test_numpys_generator_is_left_alone(name: str) -> None:
    x, y = batch()
    before = np.random.get_state()
    with silent():
        Advertorch(name, {"comply_with_foolbox": True})(Small(), x, y)
    assert all(map(np.array_equal, np.random.get_state(), before))


@every_class
def test_a_stream_makes_it_reproducible(name: str) -> None:
    x, y = batch()
    results = []
    with silent():
        for seed in (1, 1, 2):
            torch.rand(seed)  # the global generators do not matter
            with drawing_from(Stream(seed)):
                results.append(made(name)(Small(), x, y))
    assert torch.equal(results[0], results[1])
    if name in ("PGDAttack", "LinfPGDAttack", "L2PGDAttack", "LinfSPSAAttack"):
        assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=str)
def test_pgd_is_ours(ball: Any, targeted: bool) -> None:
    model, x = Linear(4, dtype=torch.float32), images().float()
    target = Y.flip(0) if targeted else None
    name = f"{type(ball).__name__}PGDAttack"
    theirs = Advertorch(name, {"nb_iter": 7, "eps_iter": 0.04, "rand_init": False}, ball)
    ours = PGD(ball, 0.04, 7, random_start=False)
    torch.testing.assert_close(theirs(model, x, Y, target), ours(model, x, Y, target), rtol=0, atol=2e-6)
    trace = theirs.run(model, x, Y, target)
    assert trace.queries.tolist() == [8] * 4  # and one answer for the number of classes


def test_on_several_draws_its_cross_entropy_is_the_mean_one() -> None:
    """Then the gradient is that of our loss; 32 values an image and 4 draws in one pass: the same noise for both."""
    linear, x = Linear(4, (2, 4, 4), dtype=torch.float32), images(4, (2, 4, 4)).float()
    model = EOT(NoisyLinear(linear, 0.3), 4)
    arguments = {"eps": 10.0, "nb_iter": 1, "eps_iter": 0.5}
    for target in (None, Y.flip(0)):
        with drawing_from(Stream(1)):
            model(x)  # for the number of classes
            expected = PGD(L2(10.0), 0.5, 1, random_start=False)(model, x, Y, target)
        attack = Advertorch("L2BasicIterativeAttack", arguments)
        with drawing_from(_After(1)):
            x_adv = attack(model, x, Y, target)
        torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-5)


class _After(Stream):
    """The stream from which the seed has been drawn already: a generator of its own serves that draw."""

    def generator(self, device: torch.device, lane: int = 0) -> torch.Generator:
        caller = inspect.stack()[2].function
        return torch.Generator(device) if caller == "_own_randomness" else super().generator(device, lane)


def test_the_mean_of_log_probabilities_is_what_it_sees() -> None:
    """The negative log likelihood of the mean is the mean cross entropy; normalised again it would be less."""
    draws = torch.randn(6, 5, 4, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0])
    mean = draws.log_softmax(-1).mean(0)
    apart = torch.stack([F.cross_entropy(draw, y, reduction="none") for draw in draws]).mean(0)
    torch.testing.assert_close(F.nll_loss(mean, y, reduction="none"), apart)
    assert (F.cross_entropy(mean, y, reduction="none") < apart).all()
    margins = draws.mean(0)[:, 0] - draws.mean(0)[:, 1]
    torch.testing.assert_close(mean[:, 0] - mean[:, 1], margins)


def test_float64_runs_in_float32_and_leaves_other_pixels_alone() -> None:
    model, x = Linear(4), images()
    y = model(x).argmax(1)
    x_adv = Advertorch("SinglePixelAttack", {"max_pixels": 2})(model, x, y)
    assert x_adv.dtype == torch.float64
    changed = (x_adv != x).sum((1, 2, 3))
    assert (changed <= 2).all()  # one pixel in two channels


def test_a_vanished_gradient_is_told() -> None:
    trace = Advertorch("LinfPGDAttack", {"nb_iter": 2}).run(lambda x: x.detach().flatten(1)[:, :4], *batch())
    assert trace.zero_gradient.all()
    x, y = batch()
    with silent():
        won = Advertorch("CarliniWagnerL2Attack", {"max_iterations": 5}).run(Small(), x, (y + 1) % 4)
    assert not won.zero_gradient.any()  # its loss is flat where it has won; the model is not


@pytest.mark.parametrize("name", ["FGM", "LinfPGDAttack", "CarliniWagnerL2Attack"])
def test_nan_of_the_model_is_no_fault_of_advertorch(name: str) -> None:
    with pytest.raises(FloatingPointError, match="the model answers NaN or infinity"):
        made(name)(lambda x: x.flatten(1)[:, :4] * float("nan"), *batch())


def test_untargeted_l_bfgs_is_told_and_finds_nothing() -> None:
    model, x = Linear(4, dtype=torch.float32), images().float()
    y = model(x).argmax(1)
    attack = Advertorch("LBFGSAttack", {"max_iterations": 50, "binary_search_steps": 5})
    with pytest.warns(UserWarning, match=r"LBFGSAttack without a target .* use attacks.LBFGS"):
        untargeted = attack(model, x, y)
    assert (model(untargeted).argmax(1) == y).all()
    target = (y + 1) % 4
    assert (model(attack(model, x, y, target)).argmax(1) == target).all()  # and no warning


def test_choose_best_is_told_and_fakes_are_undone() -> None:
    """Two attacks that change nothing: advertorch answers black images."""
    x, y = batch()
    nothing = [{"name": "LinfPGDAttack", "arguments": {"eps": 0.0, "nb_iter": 1}}]
    kind = advertorch_attacks()
    model = Small().eval()
    raw = kind.ChooseBestAttack(model, [kind.LinfPGDAttack(model, eps=0.0, nb_iter=1)]).perturb(x, y)
    assert (raw == 0).all()
    fault, undone = (
        "has all-zero images for what no part improves: for all that have a target",
        "they stay as they were",
    )
    with pytest.warns(UserWarning, match=undone), pytest.warns(UserWarning, match=fault):
        x_adv = Advertorch("ChooseBestAttack", {"base_adversaries": nothing})(model, x, y)
    assert torch.equal(x_adv, x)
    strong = [{"name": "LinfPGDAttack", "arguments": {"eps": 1.0}}]
    with silent():  # the larger loss, which is the farther from the target
        assert torch.equal(Advertorch("ChooseBestAttack", {"base_adversaries": strong})(model, x, y, (y + 1) % 4), x)


def test_l1_pgd_is_told_and_stops_short() -> None:
    model, x = Linear(4, dtype=torch.float32), images().float()
    with pytest.warns(UserWarning, match=r"moves one value per step, by its defaults 0.4 of the 10"):
        x_adv = Advertorch("L1PGDAttack", {"rand_init": False})(model, x, Y)
    assert distance(x_adv, x, "L1").max() < 0.4 + 1e-4


@pytest.mark.parametrize("name", MINIMAL_NORM)
def test_lucky_draws_are_told_on_random_models_only(name: str) -> None:
    x, y = batch()
    model = Defended(Small(), [Gauss(0.1)])
    with silent(), pytest.warns(UserWarning, match=f"{name} stops at a first draw that errs"):
        made(name)(model, x, y)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Adversary(made(name), Oblivious())(model, x, y)
    assert not any("first draw" in str(warning.message) for warning in told)


def test_lucky_draws_are_harmless() -> None:
    model = NoisyLinear(Linear(4, (3, 6, 6), dtype=torch.float32), 0.01)
    x = images(24, (3, 6, 6)).float()
    y = model.linear(x).argmax(1)
    with pytest.warns(UserWarning, match="stops at a first draw"):
        x_adv = Advertorch("CarliniWagnerL2Attack", {"max_iterations": 60})(model, x, y)
    fresh = torch.stack([model(x_adv).argmax(1) == y for _ in range(200)]).float().mean(0)
    assert (x_adv != x).any()
    assert fresh.mean() > 0.5  # all of them are "successes"


@pytest.mark.parametrize("name", [name for name in POSSIBLE if name not in ALWAYS_WARN])
def test_the_others_are_silent(name: str) -> None:
    x, y = batch()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made(name)(Small(), x, y)
    texts = [str(warning.message) for warning in told]
    expected = {"LBFGSAttack": "without a target", "SpatialTransformAttack": "they stay as they were"}
    assert all(name in expected and expected[name] in text for text in texts)


def test_other_warnings_are_not_swallowed() -> None:
    def model(x: Tensor) -> Tensor:
        warnings.warn("of the model", UserWarning, stacklevel=1)
        return x.flatten(1)[:, :4]

    with pytest.warns(UserWarning, match="of the model"):
        Advertorch("FGSM")(model, *batch())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("PGD", {}, "advertorch has no attack PGD; it has CarliniWagnerL2Attack, ChooseBestAttack, "),
        ("LabelMixin", {}, "advertorch has no attack LabelMixin"),
        ("LinfPGDAttack", {"steps": 5}, r"takes eps, nb_iter, .* \(needs: none\); got steps"),
        ("LinfPGDAttack", {"targeted": True}, "takes eps, nb_iter, .* got targeted"),
        ("LinfSPSAAttack", {}, r"takes eps, .* \(needs: eps\); got none"),
        ("LinfPGDAttack", {"eps": "large"}, "LinfPGDAttack refuses {'eps': 'large'}: an assertion failed"),
        ("ChooseBestAttack", {"base_adversaries": [{"name": "no"}]}, "advertorch has no attack no"),
    ],
)
def test_wrong_names_are_refused_in_one_line(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Advertorch(name, arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments", "ball"),
    [
        ("LinfPGDAttack", {}, L2(0.5)),
        ("LinfPGDAttack", {"eps": 0.1}, Linf(0.1)),
        ("LinfFABAttack", {}, Linf(0.1)),
        ("CarliniWagnerL2Attack", {}, L2(0.1)),
    ],
)
def test_a_ball_must_fit(name: str, arguments: dict[str, Any], ball: Any) -> None:
    with pytest.raises(ValueError, match="a ball takes the place of eps in an attack of its norm"):
        Advertorch(name, arguments, ball)


def test_it_is_a_record() -> None:
    attack = Advertorch("LinfPGDAttack", {"eps": 0.031, "nb_iter": 40})
    expected = "Advertorch(name='LinfPGDAttack', arguments={'eps': 0.031, 'nb_iter': 40}, ball=None)"
    assert repr(attack) == expected
    assert attack == Advertorch("LinfPGDAttack", {"nb_iter": 40, "eps": 0.031})
    assert hash(attack) == hash(Advertorch("LinfPGDAttack", {"nb_iter": 40, "eps": 0.031}))
    assert attack != Advertorch("LinfPGDAttack", {"nb_iter": 41, "eps": 0.031})
    assert str(attack) == "advertorch LinfPGDAttack (eps 0.031, nb_iter 40)"
    assert pickle.loads(pickle.dumps(attack)) == attack
    settings = {"eps": 0.1}
    attack = Advertorch("FGSM", settings)
    settings["eps"] = 0.2
    assert attack.arguments["eps"] == 0.1


SUITE = """
pgd:
  class_path: attacks.advertorch.Advertorch
  init_args: {name: LinfPGDAttack, arguments: {eps: 8/255, nb_iter: 40, eps_iter: 0.01}}
ball:
  class_path: attacks.advertorch.Advertorch
  init_args: {name: LinfPGDAttack, ball: {class_path: attacks.Linf, init_args: {eps: 0.031}}}
best:
  class_path: attacks.advertorch.Advertorch
  init_args:
    name: ChooseBestAttack
    arguments:
      base_adversaries:
        - {name: LinfPGDAttack, arguments: {eps: 0.031}}
        - {name: FGSM}
behind:
  class_path: attacks.Adversary
  init_args:
    attack: {class_path: attacks.advertorch.Advertorch, init_args: {name: FGM}}
    draws: 10
"""


def test_it_comes_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE)
    suite = read_suite(file, None)
    assert suite["pgd"] == Advertorch("LinfPGDAttack", {"eps": 8 / 255, "nb_iter": 40, "eps_iter": 0.01})
    assert suite["ball"] == Advertorch("LinfPGDAttack", ball=Linf(0.031))
    assert suite["behind"] == Adversary(Advertorch("FGM"), draws=10)
    assert read_suite(file, 0.1)["ball"] == Advertorch("LinfPGDAttack", ball=Linf(0.1))
    x, y = batch()
    with pytest.warns(UserWarning, match="ChooseBestAttack"):
        suite["best"](Small(), x, y)


@pytest.mark.parametrize(("old", "new"), [("name: FGM", "name: FGN"), ("nb_iter: 40", "steps: 40")])
def test_a_mistake_in_yaml_is_one_line(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE.replace(old, new))
    with pytest.raises(UsageError, match=re.escape(str(file))) as caught:
        read_suite(file, None)
    assert "advertorch" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_noise_on_weights_is_no_obstacle() -> None:
    x, y = batch()
    model = ParamNet(Small(), 0.01)
    attack = Adversary(Advertorch("LinfPGDAttack", {"nb_iter": 3}, Linf(0.05)), draws=2)
    assert attack.run(model, x, y).queries.tolist() == [8] * 3
    assert all(parameter.grad is None for parameter in model.parameters())
