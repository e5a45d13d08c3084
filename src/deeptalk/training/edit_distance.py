"""How far two sequences are apart; what error rates of training and of evaluation count."""

from collections.abc import Sequence


def edit_distance(said: Sequence[object], heard: Sequence[object]) -> int:
    """The fewest insertions, deletions and replacements that turn one sequence into the other."""
    row = list(range(len(heard) + 1))
    for i, wanted in enumerate(said, start=1):
        diagonal, row[0] = row[0], i
        for j, given in enumerate(heard, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (wanted != given))
    return row[-1]
