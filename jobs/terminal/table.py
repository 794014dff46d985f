"""Tables without lines around their cells."""

from rich.table import Table


def text_table(*columns: str) -> Table:
    """An empty table of left-aligned words, which are folded where the terminal is too narrow."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def figures_table(*columns: str, tight: bool = False) -> Table:
    """An empty table whose first column names what the right-aligned figures in the others belong to.

    Args:
        columns: the headings.
        tight: put one space between columns in place of two, and never break a cell into two lines.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0) if tight else (0, 1))
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", no_wrap=tight)
    return table
