"""Journals: one JSON object a line, in the order of the steps, rewound to the checkpoint when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from examples.quickstart.files import write_text

Entry = dict[str, Any]


class Journal:
    """What happened at which step.

    Args:
        path: JSON Lines file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: Entry) -> None:
        """Add an entry, which has a `step`; it outlives a kill of this process from here on."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def rewind(self, step: int) -> None:
        """Forget what happened after a step, a line that was cut off in writing included."""
        lines = [json.dumps(entry) + "\n" for entry in self.read() if entry["step"] <= step]
        write_text(self.path, "".join(lines))

    def read(self) -> list[Entry]:
        """Return all whole entries."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        # What follows the last line feed is empty, or the beginning of an entry whose writer was killed.
        return [json.loads(line) for line in lines[:-1]]
