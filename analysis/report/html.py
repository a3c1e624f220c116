"""Templates to HTML; everything that comes from files is escaped."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_HERE = Path(__file__).parent


def html(template: str, **values: Any) -> str:
    """The page of a template beside this file, its values escaped where they are text."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # The style sheet is ours and stands in an element where nothing may be escaped.
    environment.globals["style"] = environment.filters["safe"]((_HERE / "style.css").read_text("utf-8"))
    return environment.get_template(template).render(**values)
