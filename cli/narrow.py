"""Lays out a table on a terminal that is too narrow for it: no word is broken into letters, no row loses a column.

Columns that do not fit beside the others stand on further lines of their row, indented.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells, set_cell_size

GAP = 2
"""columns of the terminal between two of the table, and before what goes on"""


def width(cells: Sequence[Sequence[str]]) -> int:
    """Tell how many columns of a terminal rows of cells take if nothing is folded."""
    return sum(max(map(cell_len, column)) + GAP for column in zip(*cells, strict=True)) - GAP


def lines(titles: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> Iterator[str]:
    """Give the lines of a table in so many columns of a terminal. Cells are safe, on one line each."""
    groups = _groups([titles, *rows], columns)
    for row in (titles, *rows):
        for first, widths in groups:
            folded = [fold(row[first + place], size) for place, size in enumerate(widths)]
            for line in range(max(map(len, folded))):
                parts = (
                    set_cell_size(each[line] if line < len(each) else "", size)
                    for each, size in zip(folded, widths, strict=True)
                )
                said = (" " * GAP).join(parts).rstrip()
                if said or not first:  # of columns that are empty in this row nothing stands below
                    yield (" " * GAP if first else "") + said


def fold(text: str, columns: int) -> list[str]:
    """Break a line between words, and a word only where it is longer than a line."""
    if cell_len(text) <= columns:
        return [text]
    folded = [""]
    for place, word in enumerate(text.split(" ")):
        longer = f"{folded[-1]} {word}" if place else word
        if cell_len(longer) <= columns:
            folded[-1] = longer
        else:
            folded += chop_cells(word, columns) or [""]
    return folded if folded[0] else folded[1:]


def _groups(cells: Sequence[Sequence[str]], columns: int) -> list[tuple[int, list[int]]]:
    """Say which columns stand on one line, as (the first of them, how wide each is): as wide as their words need."""
    groups: list[tuple[int, list[int]]] = []
    whole = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for place, column in enumerate(zip(*cells, strict=True)):
        least = min(max(cell_len(word) for cell in column for word in cell.split(" ")), columns - GAP)
        if not groups or _taken(groups[-1]) + GAP + least > columns:
            groups.append((place, []))
        groups[-1][1].append(least)
    for first, widths in groups:  # what is left goes to those that fold
        for each in range(len(widths)):
            left = columns - _taken((first, widths))
            widths[each] += max(min(left, whole[first + each] - widths[each]), 0)
    return groups


def _taken(group: tuple[int, list[int]]) -> int:
    first, widths = group
    return (GAP if first else 0) + sum(widths) + GAP * (len(widths) - 1)
