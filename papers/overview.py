"""What experiments left in a folder, as one Markdown page: what came out, and where figures and tables lie."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from papers.experiment import Outcome

_SCALES = ("paper", "laptop", "smoke")
_OUTCOMES: tuple[Outcome, ...] = ("confirmed", "refuted", "undecided", "not testable here")


def overview(folder: Path, names: Iterable[str]) -> str:
    """The page, with links relative to the folder.

    Args:
        folder: holds NAME/SCALE/result.json.
        names: of the experiments, each at the largest scale that is there; those that were not run are listed, too.

    CPU minutes are those of all work that an experiment rests on, also where another one had made it.
    """
    rows = [
        "| name | what | scale | made | CPU minutes | verdicts | figures and tables |",
        "|---|---|---|---|---|---|---|",
    ]
    told = []
    for name in names:
        place = _largest(folder / name)
        if place is None:
            rows.append(f"| `{name}` | | not run | | | | |")
            continue
        result = json.loads((place / "result.json").read_text())
        rows.append(_row(name, place.relative_to(folder), result))
        told += _told(name, result["verdicts"])
    return "\n".join([*rows, "", *told]).rstrip() + "\n"


def _largest(folder: Path) -> Path | None:
    found = [folder / scale for scale in _SCALES if (folder / scale / "result.json").is_file()]
    return found[0] if found else None


def _row(name: str, place: Path, result: dict[str, Any]) -> str:
    counts = Counter(verdict["outcome"] for verdict in result["verdicts"])
    verdicts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if counts[outcome])
    figures = [f"[{stem}]({place}/{stem}.svg)" for stem in result.get("figures", [])]
    tables = [f"[{stem}.csv]({place}/{stem}.csv)" for stem in result["tables"]]
    links = ", ".join([*figures, *tables])
    cells = (f"`{name}`", result["title"], place.name, result["date"], _minutes(result), verdicts or "-", links)
    return f"| {' | '.join(cells)} |"


def _minutes(result: dict[str, Any]) -> str:
    """Of work from before there were notes nobody knows how long it took."""
    seconds = result.get("cpu_seconds_of_all_work")
    return "-" if seconds is None or "unknown" in result["code_of_work"] else f"{seconds / 60:.1f}"


def _told(name: str, verdicts: Sequence[dict[str, str]]) -> list[str]:
    if not verdicts:
        return []
    lines = [f"- **{verdict['outcome']}**: {verdict['claim']} ({verdict['reason']})" for verdict in verdicts]
    return [f"### {name}", "", *lines, ""]
