"""What the numbers mean, for a reader who sees this project for the first time."""

from collections.abc import Mapping
from typing import Any

from analysis.report.folder import Evaluation
from analysis.report.results import Headline

_ALWAYS = {
    "adversary": "Someone who changes the image so that the network errs: an attack with all its settings. “clean” is "
    "nobody: the images as they are.",
    "accuracy": "Share of images whose class the network names rightly. Higher is better for the defense; an attack is "
    "the stronger the lower it gets.",
    "interval": "The images are a sample of all images of their kind. Brackets that are made in this way hold the "
    "accuracy on all of them for 95 of 100 samples.",
    "worst case": "Each image under the adversary that does it most harm, nobody being one of them. The number to "
    "quote, since an attacker would try them all. Attacks that go as far as they must do not count.",
    "L2, Linf": "Size of a perturbation of pixels between 0 and 1: the root of the sum of all squared changes, and the "
    "largest change of a value. 8/255 = 0.0314.",
    "queries": "How many images the attack showed to the network to make one of its own.",
}
_RANDOM = {
    "judge draw": "This network draws noise at each pass, so that it may answer differently each time. A judge asks it "
    "anew for each image, with noise that no attack has seen.",
    "single draw": "Accuracy of one pass, averaged over all draws of the judge.",
    "vote": "Accuracy of the majority of several passes; a tie counts as an error.",
    "all k right": "Probability that k passes are all right: an attacker who may try k times needs only one error.",
    "robust, undecided, broken": "Images whose true class is significantly more, or less, frequent among the draws "
    "than the strongest other class (exact binomial test, level {level:g} %). Undecided ones would need more draws.",
}


def terms(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Word and explanation, of what is on the page."""
    summaries = evaluation.results.get("summaries") or [{}]
    level = 100 * summaries[0].get("decision_level", 0.05)
    random = [(word, text.format(level=level)) for word, text in _RANDOM.items()]
    return [*_ALWAYS.items(), *(random if evaluation.random else ())]


def hardware(environment: Mapping[str, Any]) -> str:
    """What computed it, as far as the environment tells: folders of before know the architecture, not the processor."""
    device = environment.get("device_name") or environment.get("device")
    processor = environment.get("processor") or environment.get("machine")
    return ", ".join(str(name) for name in (device, processor) if name)


def verdict(evaluation: Evaluation, headlines: list[Headline], worst: Headline | None, doubts: int) -> str:
    """The result in a sentence or two; empty if there are no numbers."""
    first = "the first " if evaluation.is_beginning else ""
    which = f"Of {first}{evaluation.n} {evaluation.manifest.get('split') or 'test'} images the network gets "
    clean = [f"{_percent(one)} right as they are" for one in headlines if one.name == "clean"]
    attacked = _attacked([one for one in headlines if one.name != "clean"], worst)
    if not clean + attacked:
        return ""
    draws = " (single draws)" if evaluation.random else ""
    warning = {0: "", 1: " One check of the evaluation raises doubts."}
    said = warning.get(doubts, f" {doubts} checks of the evaluation raise doubts.")
    return f"{which}{' and '.join(clean + attacked)}{draws}.{said}"


def _attacked(attacked: list[Headline], worst: Headline | None) -> list[str]:
    if not attacked:
        return []
    lowest = min(attacked, key=lambda one: one.single.value)
    if len(attacked) == 1:
        return [f"{_percent(worst or lowest)} under {lowest.name}"]
    if worst is None:
        return [f"{_percent(lowest)} under {lowest.name}, the strongest of {len(attacked)} adversaries"]
    return [f"{_percent(worst)} under the strongest of {len(attacked)} adversaries for each image"]


def interval_text(evaluation: Evaluation) -> str:
    """What the brackets of the main table are."""
    level = next((one.get("level") for one in evaluation.results.get("summaries") or []), None) or 0.95
    if not evaluation.random:
        kind = "Wilson's interval over images"
    elif evaluation.manifest.get("shared"):
        kind = "bootstrap over images and passes, as images of a batch share a draw"
    else:
        kind = "bootstrap over images"
    return f"the {100 * level:g} % interval ({kind})."


def _percent(headline: Headline) -> str:
    low, high = headline.single.low, headline.single.high
    interval = "" if low is None or high is None else f" (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    return f"{100 * headline.single.value:.1f} %{interval}"


def votes(evaluation: Evaluation, headlines: list[Headline]) -> tuple[str, str]:
    """Headings of the columns of votes and of draws that must all be right."""
    k = headlines[0].votes if headlines else evaluation.draws
    deployed = " (deployed)" if evaluation.manifest.get("votes", 1) > 1 else ""
    return f"vote of {k}{deployed}", f"all {k} right"
