"""The report of one evaluation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.report import words
from analysis.report.classes import by_class
from analysis.report.curves import robustness_charts
from analysis.report.figures import distance_charts, loss_charts
from analysis.report.folder import Evaluation
from analysis.report.html import html
from analysis.report.pictures import examples
from analysis.report.results import (
    Check,
    Estimate,
    Headline,
    checks,
    chosen,
    cost,
    headlines,
    worst_case,
)
from analysis.report.transfer_page import is_transfer, transfer_page
from evaluation.records import write_atomically

_NOT_VERSIONS = ("date",)


@dataclass(frozen=True)
class Card:
    """One of the large numbers on top: an estimate, or a value in words."""

    name: str
    note: str
    estimate: Estimate | None = None
    value: str = ""


def write_report(folder: Path) -> Path:
    """Writes `report.html` into the folder of a finished evaluation or transfer, whole or not at all; returns its path.

    Raises:
        FileNotFoundError: the folder lacks `manifest.json`, `results.json` or `per_image.parquet`.
        ValueError: one of them is damaged.
    """
    path = folder / "report.html"
    if is_transfer(folder):
        page = transfer_page(folder)
    else:
        page = html("evaluation.html.j2", **_content(Evaluation.read(folder)))
    write_atomically(path, page.encode())
    return path


def _content(evaluation: Evaluation) -> dict[str, Any]:
    rows, worst, checked = headlines(evaluation), worst_case(evaluation), checks(evaluation)
    doubts = sum(check.kind == "doubt" for check in checked)
    others = {key: value for key, value in evaluation.manifest.items() if key != "attacks"}
    return {
        "e": evaluation,
        "verdict": words.verdict(evaluation, rows, worst, doubts),
        "facts": facts(evaluation),
        "cards": _cards(rows, worst, checked),
        "headlines": rows,
        "worst_case": worst,
        "chosen": chosen(evaluation),
        "interval_text": words.interval_text(evaluation),
        "votes": words.votes(evaluation, rows),
        "terms": words.terms(evaluation),
        "checks": checked,
        "curves": robustness_charts(evaluation),
        "losses": loss_charts(evaluation),
        "distances": distance_charts(evaluation),
        "examples": examples(evaluation),
        "classes": by_class(evaluation),
        "cost": cost(evaluation.results),
        "command": evaluation.results.get("command"),
        "attacks": _attacks(evaluation),
        "versions": [pair for pair in evaluation.environment.items() if pair[0] not in _NOT_VERSIONS],
        "manifest": json.dumps(others, indent=2, sort_keys=True),
    }


def facts(evaluation: Evaluation) -> list[tuple[str, Any]]:
    """What was evaluated: name and value, those that are known."""
    manifest, environment = evaluation.manifest, evaluation.environment
    draws = evaluation.draws if evaluation.random else "1 (no noise)"
    split = manifest.get("split") or ""
    known = {
        "data": f"{evaluation.data} {split}".strip(),
        "images": f"{evaluation.n:,}",
        "judge draws": draws,
        "seed": manifest.get("seed"),
        "date": str(environment.get("date") or "")[:10],
        "hardware": words.hardware(environment),
        "weights (SHA-256)": str(manifest.get("weights_sha256") or "")[:12],
    }
    return [(name, value) for name, value in known.items() if value not in (None, "")]


def _attacks(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Name and repr, in the order of the table: that of the manifest's keys is alphabetical."""
    known = evaluation.manifest.get("attacks") or {}
    first = [name for name in evaluation.rows if name in known]
    return [(name, known[name]) for name in dict.fromkeys([*first, *known])]


def _cards(rows: list[Headline], worst: Headline | None, checked: list[Check]) -> list[Card]:
    attacked = [row for row in rows if row.name != "clean"]
    cards = [_card("clean images", row) for row in rows if row.name == "clean"]
    if worst is not None:
        cards.append(_card("worst case", worst))
    elif attacked:
        lowest = min(attacked, key=lambda row: row.single.value)
        cards.append(_card(f"under {lowest.name}, the strongest", lowest))
    counts = [f"{sum(check.kind == kind for check in checked)} {word}" for kind, word in _KINDS]
    doubts = sum(check.kind == "doubt" for check in checked)
    value = f"{doubts} doubt{'s' * (doubts != 1)}" if checked else "not run"
    return [*cards, Card("checks", ", ".join(counts) if checked else "of the evaluation itself", value=value)]


_KINDS = (("pass", "passed"), ("not-run", "not run"))


def _card(name: str, row: Headline) -> Card:
    low, high = row.single.low, row.single.high
    notes = [] if low is None or high is None else [f"{100 * low:.1f} to {100 * high:.1f} % (interval)"]
    if row.vote is not None:
        notes.append(f"vote of {row.votes}: {100 * row.vote.value:.1f} %")
    return Card(name, " · ".join(notes), row.single)
