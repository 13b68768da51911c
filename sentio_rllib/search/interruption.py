"""Ctrl-C and termination as a request to end: what was reached is written."""

from __future__ import annotations

import signal
import threading
from typing import Any

from ray import tune


class Interruption(tune.Stopper):  # type: ignore[misc]  # Ray ships no types
    """Takes the first Ctrl-C or termination signal as a request to end; a second one kills.

    Parameters
    ----------
    told
        What is printed at the first.
    """

    def __init__(self, told: str = "ending: trials are stopped, what was reached is written") -> None:
        self.seen = False
        self.told = told
        self._original: dict[int, Any] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial ends by itself for this reason; all do."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Whether the user wants an end."""
        return self.seen

    def listen(self) -> None:
        """Take over the signals, where they have not been asked to end already; only the main thread can."""
        if self.seen or threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.signal(number, self._ask)
            self._original.setdefault(number, handler)

    def __enter__(self) -> Interruption:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._original.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self.seen = True
        print(self.told, flush=True)
        self.__exit__()

    def __getstate__(self) -> dict[str, Any]:
        """Handlers stay with this process."""
        return {"seen": self.seen, "told": self.told, "_original": {}}
