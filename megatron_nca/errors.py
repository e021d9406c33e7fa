"""The errors a user can meet.

Every message names what was given, what is wrong with it and what would be right, because it is read at night by somebody
whose nodes are waiting.
"""

from __future__ import annotations


class NCAError(ValueError):
    """Base class of every error that megatron-nca raises about its input.

    Attributes:
        is_of_every_rank: Whether every rank of a launch raises it, so that one of them may tell it for all.
    """

    is_of_every_rank: bool = False


def _on_one_line(message: str) -> str:
    """Return a message with what was given in it as it was written, what no terminal shows escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)


class ConfigError(NCAError):
    """A setting of the process is not usable.

    Args:
        field: Name of the setting, as in ``NCAConfig`` and in an ``nca:`` entry.
        value: What was given.
        problem: What is wrong and what would be right, one clause each.
    """

    def __init__(self, field: str, value: object, problem: str) -> None:
        super().__init__(_on_one_line(f"{field}={value}: {problem}"))
        self.field = field
        self.value = value
        self.problem = problem


class EntryError(NCAError):
    """An ``nca:`` entry of a data path is not usable.

    Args:
        entry: The entry as the user wrote it.
        problem: What is wrong and what would be right.
    """

    def __init__(self, entry: str, problem: str) -> None:
        super().__init__(_on_one_line(f"data path entry {entry!r}: {problem}"))
        self.entry = entry
        self.problem = problem


class CurriculumError(NCAError):
    """Entries that are right one by one do not make a curriculum, or not one that fits the run."""


class VocabularyError(NCAError):
    """The process's token ids do not fit the tokenizer."""


class CorpusError(NCAError):
    """An offline corpus cannot be written where it was asked for."""


class EnvironmentMismatchError(NCAError):
    """This machine would not make the same tokens as others, or its Megatron-Core is not one this package knows."""
