"""Tables for people."""


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others are right-aligned."""
    rule = [":--", *("--:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, rule, *rows])
