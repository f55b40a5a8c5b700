"""Whether two encodings make the same inputs of the same rows, and what differs if not."""

from typing import Any


def difference(one: Any, other: Any) -> str:
    """What differs between two encodings, in words; "" if they encode alike."""
    mine, theirs = ({c.name: c for c in e.columns} for e in (one, other))
    if one.form == other.form and list(mine.items()) == list(theirs.items()):
        return ""
    absent, extra = ([n for n in a if n not in b] for a, b in ((mine, theirs), (theirs, mine)))
    found = [f"column {absent[0]!r} is absent"] if absent else []
    found += [f"column {extra[0]!r} is new"] if extra else []
    for name in mine.keys() & theirs.keys():
        a, b = mine[name], theirs[name]
        if a.type != b.type:
            found.append(f"column {name!r} is {b.type} instead of {a.type}")
        elif (a.values, a.buckets) != (b.values, b.buckets):
            found.append(f"column {name!r} has the categories {_shown(b.values)} instead of {_shown(a.values)}")
        elif a.scales != b.scales and "" in a.scales and "" in b.scales:
            x, y = b.scales[""], a.scales[""]
            found.append(f"column {name!r} is scaled by {x.centre:.4g} and {x.scale:.4g} instead of {y.centre:.4g} and "
                         f"{y.scale:.4g}")  # fmt: skip
        elif a.scales != b.scales:
            found.append(f"column {name!r} is scaled otherwise")
        elif a.indicated != b.indicated:
            found.append(f"column {name!r} has {'no ' if a.indicated else 'a '}column that says where it is missing")
    if one.form != other.form:
        found.append(f"categories are {other.form} instead of {one.form}")
    if not found and list(mine) != list(theirs):
        found.append("columns are in another order")
    return "; ".join(sorted(found)[:3])


def _shown(values: tuple[str, ...]) -> str:
    return ", ".join(values[:5]) + (f", ... ({len(values)})" if len(values) > 5 else "")
