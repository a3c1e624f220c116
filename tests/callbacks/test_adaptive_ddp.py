"""Two processes attack what one would: each image once, the same numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.names import ROOT

# Forked processes need no second import. First, since a process that has used autograd cannot be forked.
SCRIPT = """
import sys
import warnings
from pathlib import Path

from tests.callbacks.toys import SUITE, Module, loader, trainer

from callbacks import AdaptiveEvaluation, MetricsFile

warnings.simplefilter("ignore")
for name, settings in {"two": {"devices": 2, "strategy": "ddp_fork"}, "one": {"devices": 1}}.items():
    folder = Path(sys.argv[1]) / name
    for n in (19, 5):  # three batches: two of them the first process's; a single one
        watcher = AdaptiveEvaluation(SUITE, n_images=n, draws=6, batch_size=8)
        runner = trainer(watcher, logger=MetricsFile(folder), default_root_dir=folder, **settings)
        runner.validate(Module(), loader(), verbose=False)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_"))}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert len(one) == 2
    assert all(line["adaptive/pgd3/accuracy"] < line["adaptive/clean/accuracy"] for line in one)
    assert two == one
    pictures = [sorted((tmp_path / name / "panels").iterdir()) for name in ("one", "two")]
    assert [path.read_bytes() for path in pictures[0]] == [path.read_bytes() for path in pictures[1]]
