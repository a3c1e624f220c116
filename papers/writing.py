"""What is left of an experiment: tables (terminal, CSV), figures (SVG, PNG), and everything in result.json."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation import aligned
from evaluation.records import write_atomically
from papers.experiment import Findings, Table, Value, Verdict
from papers.style import save


def write(folder: Path, findings: Findings, facts: Mapping[str, Any]) -> list[Path]:
    """Write findings into a folder; returns the files.

    Args:
        folder: made if it is not there.
        findings: of one experiment.
        facts: command, scale, seed, hardware, date: whatever tells how they were made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for table in findings.tables:
        files.append(folder / f"{table.name}.csv")
        write_atomically(files[-1], _csv(table).encode())
    for name, figure in findings.figures.items():
        files += save(figure, folder / name)
    files.append(folder / "result.json")
    content = {
        **facts,
        "figures": list(findings.figures),
        "tables": {table.name: {"caption": table.caption, "header": list(table.header), "rows": table.rows}
                   for table in findings.tables},
        "verdicts": [asdict(verdict) for verdict in findings.verdicts],
    }  # fmt: skip
    write_atomically(files[-1], f"{json.dumps(content, indent=1)}\n".encode())
    return files


def shown(findings: Findings) -> str:
    """Tables and verdicts for a terminal."""
    parts = [f"{table.caption}\n{aligned(_cells(table))}" for table in findings.tables]
    if findings.verdicts:
        parts.append("\n".join(map(_line, findings.verdicts)))
    return "\n\n".join(parts)


def _line(verdict: Verdict) -> str:
    return f"{verdict.outcome}: {verdict.claim} ({verdict.reason})"


def _cells(table: Table) -> list[list[str]]:
    return [list(table.header), *([_text(cell) for cell in row] for row in table.rows)]


def _text(cell: str | float | Value | None) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _csv(table: Table) -> str:
    """A column of values becomes three: the value and the ends of its interval."""
    wide = {place for row in table.rows for place, cell in enumerate(row) if isinstance(cell, Value)}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(name for place, title in enumerate(table.header) for name in _columns(title, place in wide))
    for row in table.rows:
        lines.writerow(part for place, cell in enumerate(row) for part in _split(cell, place in wide))
    return text.getvalue()


def _columns(title: str, wide: bool) -> list[str]:
    return [title, f"{title} low", f"{title} high"] if wide else [title]


def _split(cell: str | float | Value | None, wide: bool) -> list[object]:
    if not wide:
        return [cell]
    return list(cell) if isinstance(cell, Value) else [cell, None, None]
