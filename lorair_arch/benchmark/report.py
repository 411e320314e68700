"""How results are shown and kept."""

from __future__ import annotations

from tabulate import tabulate


def as_table(results: dict[str, dict]) -> str:
    """Gives the results as a table: key, ratio (or value with its unit), spread, what it is."""
    rows = []
    for key, result in results.items():
        value = result['value']
        shown, low, high = (_number(value[part], value['unit']) for part in ('median', 'low', 'high'))
        rows.append((key, f'{shown} {value["unit"]}'.strip(), f'{low} to {high}', result['what']))
    return tabulate(rows, ('key', 'ratio', 'spread', 'what it is'), 'github', disable_numparse=True) + '\n'


def _number(value: float, unit: str) -> str:
    if not unit:
        return f'{value:.3f}'
    return f'{value:.1f}' if value < 100 else f'{value:.0f}'
