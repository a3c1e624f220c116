"""The command line: names, messages, and what train.py and evaluate.py run. The only package that knows sys.argv."""

__all__: list[str] = []
