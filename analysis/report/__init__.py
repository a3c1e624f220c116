"""One HTML file per evaluation, and one for several side by side: nothing loaded, no script, opens from disk."""

from analysis.report.comparison import Compared, write_comparison
from analysis.report.evaluation_page import write_report

__all__ = ["Compared", "write_comparison", "write_report"]
