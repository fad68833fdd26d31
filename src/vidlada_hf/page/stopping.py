"""Which stop button stops what: everything that a visitor asked for before pressing it, running or waiting."""

import threading


class StopButtons:
    """The stop buttons of all visitors. What is asked for takes `flag` when it is asked, and looks at it until done."""

    def __init__(self) -> None:
        self._flags: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def flag(self, visitor: str) -> threading.Event:
        """Set as soon as the visitor presses the button."""
        with self._lock:
            return self._flags.setdefault(visitor, threading.Event())

    def press(self, visitor: str) -> None:
        """Stops what was asked for so far; also called when the visitor leaves."""
        with self._lock:
            flag = self._flags.pop(visitor, None)
        if flag is not None:
            flag.set()


__all__ = ["StopButtons"]
