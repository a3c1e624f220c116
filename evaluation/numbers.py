"""Every reported number of an evaluation, computed from its per-image table and from nothing else."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from evaluation.batch import Rows, rows_of
from evaluation.curves import Curve, Point, eps_curves, l2_curves
from evaluation.decisions import decide, decisions, vote
from evaluation.intervals import Interval, bootstrap, wilson
from evaluation.paired import Comparison, compare
from evaluation.records import write_atomically
from evaluation.summary import Setting, Summary, summarise, summary_of
from evaluation.tables import aligned, format_table, markdown_table
from evaluation.worst_case import WorstCase, within, worst_case

__all__ = [
    "Comparison",
    "Curve",
    "Interval",
    "Numbers",
    "Point",
    "Setting",
    "Summary",
    "WorstCase",
    "aligned",
    "bootstrap",
    "compare",
    "decide",
    "decisions",
    "eps_curves",
    "format_table",
    "l2_curves",
    "markdown_table",
    "numbers_of",
    "results",
    "setting_of",
    "summarise",
    "vote",
    "wilson",
    "worst_case",
    "write_results",
]


@dataclass(frozen=True)
class Numbers:
    """All numbers of a table.

    Attributes:
        summaries: of each adversary, in the order of the table.
        worst_case: over all of them; None where there is but one, or a random model was judged on a single draw.
        eps_curves, l2_curves: robust accuracy over the size of the perturbation.
    """

    summaries: list[Summary]
    worst_case: WorstCase | None
    eps_curves: list[Curve]
    l2_curves: list[Curve]


def setting_of(manifest: Mapping[str, Any], level: float = 0.95, decision_level: float = 0.05) -> Setting:
    """How the numbers of a folder are formed, from its manifest: `random`, `shared`, `votes`, `seed`, `bounded`.

    Raises:
        ValueError: the manifest does not say whether the model is random.
    """
    if not isinstance(manifest.get("random"), bool):
        raise ValueError(f"manifest['random'] must say whether the model is, got {manifest.get('random')!r}")
    return Setting(
        random=manifest["random"],
        shared=manifest.get("shared", False),
        votes=manifest.get("votes", 1),
        level=level,
        decision_level=decision_level,
        seed=manifest.get("seed", 0),
        bounded=tuple(manifest["bounded"]) if "bounded" in manifest else None,
    )


def numbers_of(
    table: pa.Table | Mapping[str, Rows], setting: Setting, radii: Mapping[str, Any] | None = None
) -> Numbers:
    """All numbers of a table of `SCHEMA`, or of what `rows_of` made of it.

    Args:
        table: as `Records.table` gives it.
        setting: see `setting_of`.
        radii: of a suite at several radii: name -> adversary -> eps.

    Raises:
        ValueError: see `summarise`, `worst_case` and `eps_curves`.
    """
    rows = table if isinstance(table, Mapping) else rows_of(table)
    summaries = [summary_of(images, setting) for images in rows.values()]
    possible = len(within(rows, setting)) > 1 and (not setting.random or summaries[0].draws > 1)
    return Numbers(
        summaries=summaries,
        worst_case=worst_case(rows, setting) if possible else None,
        eps_curves=eps_curves(summaries, radii or {}),
        l2_curves=l2_curves(rows, setting),
    )


def results(
    numbers: Numbers | Sequence[Summary],
    manifest: Mapping[str, Any],
    *,
    environment: Mapping[str, Any] | None = None,
    command: str = "",
    checks: Sequence[Mapping[str, Any]] = (),
    cost: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What ``results.json`` holds, as plain JSON values (intervals as [low, high]).

    Args:
        numbers: of the table; or summaries alone, which leaves worst case and curves empty.
        manifest: of the folder.
        environment: versions and hardware.
        command: what the user typed.
        checks: of the evaluation, as JSON values.
        cost: "forward" and "backward" passes over images, "seconds".

    Raises:
        ValueError: if a number is not finite.
    """
    found = numbers if isinstance(numbers, Numbers) else Numbers(list(numbers), None, [], [])
    content = {
        "manifest": dict(manifest),
        "environment": dict(environment or {}),
        "command": command,
        "summaries": [asdict(summary) for summary in found.summaries],
        "worst_case": asdict(found.worst_case) if found.worst_case else None,
        "curves": {
            "eps": [asdict(curve) for curve in found.eps_curves],
            "l2": [asdict(curve) for curve in found.l2_curves],
        },
        "checks": [dict(check) for check in checks],
        "cost": dict(cost or {}),
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    return plain


def write_results(
    folder: Path, numbers: Numbers | Sequence[Summary], manifest: Mapping[str, Any], **others: Any
) -> Path:
    """Writes `results` (same arguments) to ``results.json`` in the folder, atomically, and returns its path."""
    path = Path(folder) / "results.json"
    write_atomically(path, f"{json.dumps(results(numbers, manifest, **others), indent=2)}\n".encode())
    return path
