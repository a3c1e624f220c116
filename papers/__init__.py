"""The papers' tables and figures, each a short file in configs/papers; `python evaluate.py paper NAME`."""

from papers.bench import Bench, Network, Part, Source
from papers.experiment import Experiment, Findings, Table, Value, Verdict, beside
from papers.transfer import Transfer
from papers.writing import shown, write

__all__ = [
    "Bench",
    "Experiment",
    "Findings",
    "Network",
    "Part",
    "Source",
    "Table",
    "Transfer",
    "Value",
    "Verdict",
    "beside",
    "shown",
    "write",
]
