"""What passes, and has checked nothing: an empty topic may be chance in one seed, and not in all."""

from __future__ import annotations

from ottla.explore.plan import Run


class Checked:
    """The checks of all runs of a test."""

    def __init__(self) -> None:
        self._made: dict[str, bool] = {}

    def add(self, run: Run) -> None:
        """One more run."""
        for check, had_sources in run.checked.items():
            self._made[check] = self._made.get(check, False) or had_sources

    def problem(self) -> str:
        """What is wrong although all of the runs have passed; empty if nothing is."""
        return "" if any(self._made.values()) else self._told()

    def doubt(self) -> str:
        """What may be wrong where others of its checks had records; empty if nothing is."""
        return self._told() if any(self._made.values()) else ""

    def _told(self) -> str:
        checks = ", ".join(check for check, had_sources in self._made.items() if not had_sources)
        if not checks:
            return ""
        return f"no seed had a record in what was checked: {checks}. Is the topic's name right?"
