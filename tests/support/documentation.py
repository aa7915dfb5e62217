"""What the documentation must have."""

from __future__ import annotations

from udpecho.options import Table


def optionTable(table: Table, markup: str) -> list[str]:
    """The table of options for the documentation: the option, its default, and its help.

    @param markup: C{"markdown"} or C{"rst"}.
    @return: the lines.
    """
    rows = [
        (f"--{option.name} {option.metavar}".rstrip(), option.default or option.defaultText, option.description)
        for option in table.values()
    ]
    if markup == "markdown":
        head = ["| option | default | |", "|---|---|---|"]
        return head + [f"| `{name}` | {default} | {text} |" for name, default, text in rows]
    return [line.rstrip() for name, *cells in rows for line in (f"* - ``{name}``", *(f"  - {cell}" for cell in cells))]
