"""Exponential backoff."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from `first` to `longest` seconds, each reduced at random by up to half (jitter)."""

    #: Failures are logged from this many in a row on, since the restart of a service causes a few.
    FAILURE_THRESHOLD = 5

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self.failures = 0

    def succeeded(self) -> None:
        self.failures = 0

    def failed(self) -> float:
        """Counts a failure and returns the delay."""
        full = min(self._first * 2 ** min(self.failures, 30), self._longest)
        self.failures += 1
        return full * (1 - random.random() / 2)

    @property
    def is_lasting(self) -> bool:
        return self.failures >= self.FAILURE_THRESHOLD
