"""The papers' tables and figures, each a short file in configs/papers; `python evaluate.py paper NAME`."""

from papers.adaptive import AdaptiveDistortion
from papers.attack_curves import AttackCurves
from papers.bench import Bench, MissingNetwork, Network, Part, Source
from papers.channel_deltas import ChannelDeltas
from papers.claims import Claim, Ordering
from papers.clean import CleanAccuracy
from papers.curvature import Curvature
from papers.curve import AttackCurve
from papers.experiment import Experiment, Findings, Table, Value, Verdict, beside
from papers.gradient_anomaly import GradientAnomaly
from papers.gradient_norms import GradientNorms
from papers.gradient_recovery import GradientRecovery
from papers.hybrid import Hybrid
from papers.overview import overview
from papers.passing import Side
from papers.pictures import Pictures
from papers.recovery import Recovery
from papers.recovery_window import RecoveryWindow
from papers.strongest import Strongest
from papers.sweeps import Defense, Panel, Sweep
from papers.toward import Toward
from papers.transfer import Transfer
from papers.voting import MultiTrialAttack, Trials
from papers.writing import shown, write

__all__ = [
    "AdaptiveDistortion",
    "AttackCurve",
    "AttackCurves",
    "Bench",
    "ChannelDeltas",
    "Claim",
    "CleanAccuracy",
    "Curvature",
    "Defense",
    "Experiment",
    "Findings",
    "GradientAnomaly",
    "GradientNorms",
    "GradientRecovery",
    "Hybrid",
    "MissingNetwork",
    "MultiTrialAttack",
    "Network",
    "Ordering",
    "Panel",
    "Part",
    "Pictures",
    "Recovery",
    "RecoveryWindow",
    "Side",
    "Source",
    "Strongest",
    "Sweep",
    "Table",
    "Toward",
    "Transfer",
    "Trials",
    "Value",
    "Verdict",
    "beside",
    "overview",
    "shown",
    "write",
]
