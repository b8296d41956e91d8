"""What learners have in common that give actions codes in the order in which they see them."""

from __future__ import annotations

from engine.oracles.columns import Columns
from engine.oracles.vocabulary import Vocabulary


class ByCode:
    """A learner's columns, its actions and the number of its feedbacks; a subclass learns.

    Parameters
    ----------
    columns
        The form of the rows.
    max_actions : int
        How many actions get a code.
    """

    def __init__(self, columns: Columns, max_actions: int) -> None:
        self.columns = columns
        self.learned = 0
        self._words = Vocabulary(max_actions)

    @property
    def vocabulary(self) -> list[str]:
        """Ids of the actions with codes 1, 2, ... so far."""
        return self._words.ids

    @property
    def width(self) -> int:
        """Columns of X."""
        return self.columns.width
