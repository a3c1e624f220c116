"""What `evaluate.py compare` runs: evaluations side by side, on the images that they have in common."""

from pathlib import Path
from typing import TYPE_CHECKING

from cli.names import UsageError, resolve
from cli.report import evaluation_in

if TYPE_CHECKING:
    from analysis.report import Compared

_USAGE = "python evaluate.py compare RUN RUN ... [--out FILE.html]"


def main(words: list[str]) -> None:
    """Print the differences of each two evaluations and write the page.

    Args:
        words: those after `compare`: two or more folders of evaluations, or run folders, whose newest evaluation is
            taken, and --out (default: comparison.html in the current folder).

    Raises:
        UsageError: fewer than two are named, one is no finished evaluation, or --out names no place for a page.
    """
    invocation = resolve(words, take=("--out",))
    if options := [word for word in invocation.options if word.startswith("-")]:
        raise UsageError(f"compare takes no {options[0]}; usage: {_USAGE}")
    if len(invocation.options) < 2:
        raise UsageError(f"give two or more evaluations or runs, got {len(invocation.options)}; usage: {_USAGE}")
    out = _page(invocation.taken.get("--out", "comparison.html"))
    folders = [evaluation_in(Path(word)) for word in invocation.options]

    from analysis.report import Compared

    compared = Compared.of(folders)
    print(f"\n{_caption(compared)}\n{compared.table()}")
    if len(compared.pairs) > 1:
        print("the other adversaries are in the page")
    print(f"wrote {compared.write(out)}")


def _page(given: str) -> Path:
    out = Path(given)
    if out.suffix != ".html" or out.is_dir():
        raise UsageError(f"--out takes a file that ends in .html, got '{given}'")
    if not out.parent.is_dir():
        raise UsageError(f"--out {given}: no such folder as {out.parent}")
    return out


def _caption(compared: "Compared") -> str:
    runs = compared.runs
    first = next(iter(runs.values()))
    n = " or ".join(map(str, compared.sizes))
    head = f"{', '.join(runs)}: {first.data} {first.manifest.get('split', '')}, n = {n} common images, single draws"
    where = [f"{name}: {run.folder}" for name, run in runs.items()]
    return "\n".join([head, *where])
