"""Analysis: figures and tables from runs and records."""

__all__: list[str] = []
