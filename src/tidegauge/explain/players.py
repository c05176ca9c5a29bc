"""Who plays the game: columns, and groups of columns that are known or unknown together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Player:
    """Columns that are known or unknown together."""

    name: str
    columns: tuple[int, ...]


def players_of(
    columns: tuple[str, ...], groups: Mapping[str, Sequence[str]] | None
) -> tuple[Player, ...]:
    """Put groups where their first column stands; every other column is a player of its own.

    >>> [player.columns for player in players_of(("a", "b", "c"), {"pair": ["a", "c"]})]
    [(0, 2), (1,)]
    """
    owner: dict[str, str] = {}
    for name, members in (groups or {}).items():
        if isinstance(members, str) or not members:
            raise ValueError(f"group {name!r}: a list of column names is wanted, got {members!r}")
        for member in map(str, members):
            if member not in columns:
                raise ValueError(
                    f"group {name!r}: column {member!r} is unknown; there are {', '.join(columns)}"
                )
            if member in owner:
                raise ValueError(f"column {member!r} is in group {owner[member]!r} and {name!r}")
            owner[member] = name
    places: dict[str, list[int]] = {}
    for place, column in enumerate(columns):
        places.setdefault(owner.get(column, column), []).append(place)
    for name, held in places.items():
        if name in columns and name in (groups or {}) and owner.get(name) != name:
            raise ValueError(
                f"group {name!r} has the name of column {columns[held[0]]!r} outside it"
            )
    return tuple(Player(name, tuple(held)) for name, held in places.items())
