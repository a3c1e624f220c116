"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Any

from callbacks import on_terminal

_EVERY = 30.0  # seconds between two lines


class Progress:
    """Counts units of work on standard error (bar) or standard output (lines).

    Args:
        total: units in all.
        unit: what is counted, in the plural.
        done: units that were there before; the time left is reckoned from the others.
        terminal: whether someone watches; None: look.
        clock: seconds.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        done: int = 0,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.unit, self.done, self._before = total, unit, done, done
        self._clock, self._started = clock, clock()
        self._told = self._started
        self._bar: Any = None
        if on_terminal() if terminal is None else terminal:
            from tqdm import tqdm  # type: ignore[import-untyped]

            # The rate is that of this run: smoothing would forget that adversaries differ.
            self._bar = tqdm(
                total=total, initial=done, unit=f" {unit}", smoothing=0, dynamic_ncols=True, file=sys.stderr
            )

    def advance(self, units: int, text: str = "") -> None:
        """So many more are done; `text` says what is known so far."""
        self.done += units
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(units)
        elif (now := self._clock()) - self._told >= _EVERY or self.done >= self.total:
            self._told = now
            print(self._line(now, text), flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, now: float, text: str) -> str:
        fresh = max(self.done - self._before, 1)
        left = (self.total - self.done) * (now - self._started) / fresh
        parts = [f"{self.done}/{self.total} {self.unit}", text, f"{duration(left)} left"]
        return "  ".join(part for part in parts if part)


class Pulse:
    """A line now and then from work of which nobody knows how much is left.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._started = clock, clock()
        self._told = self._started

    def beat(self, text: str) -> None:
        """`text` says what is done; it is printed if nothing was for a while."""
        if (now := self._clock()) - self._told >= _EVERY:
            self._told = now
            print(f"{text}  {duration(now - self._started)} so far", flush=True)


def duration(seconds: float) -> str:
    """As people say it.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
