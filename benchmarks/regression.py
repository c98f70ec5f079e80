"""What became slower: `python -m benchmarks.regression --old=before.json --new=after.json`.

Compares two files that the same benchmark kept, row by row. Exits with status 1 if anything became
slower, larger or longer by more than the spread of both. Both files must come from the same
machine: times of two machines cannot be compared.
"""

import json
import pathlib
from collections import Counter

from absl import flags

from benchmarks import report
from vaejax import cli
from vaejax.errors import UserError

OLD = flags.DEFINE_string("old", None, "JSON file of the earlier measurement.")
NEW = flags.DEFINE_string("new", None, "JSON file of the later measurement.")
LEAST = flags.DEFINE_float(
    "least", 3.0, "Changes below this many percent are noise.", lower_bound=0
)

# Columns by which way is better; columns in neither are not compared.
HIGHER_IS_BETTER = ("images/s", "images/s at most", "ratio")
LOWER_IS_BETTER = ("ms/step", "compile s", "program MB", "seconds", "wait %")
# Compared by their difference, because the ratio of two small shares says nothing.
SHARES = ("wait %",)
# Percent by which times that are measured only once vary from one start to the next.
ONCE = 50.0


def compare(old: list[report.Row], new: list[report.Row], least: float) -> list[report.Row]:
    """Returns one row for every number that both have.

    Args:
      old: rows as a benchmark kept them.
      new: rows that the same benchmark kept later.
      least: changes below this many percent never count as worse.

    Raises:
      UserError: no row of one is in the other, or they hold nothing that is compared.
    """
    before, after = _by_identity(old), _by_identity(new)
    found = []
    for identity, row in after.items():
        if identity not in before:
            continue
        earlier = before[identity]
        # Twice half the interquartile range is about 1.35 standard deviations.
        usual = max(least, 2 * (earlier.get("spread %", 0.0) + row.get("spread %", 0.0)))
        for name in (*HIGHER_IS_BETTER, *LOWER_IS_BETTER):
            if name in row and name in earlier and (name in SHARES or earlier[name]):
                change = row[name] - earlier[name]
                if name not in SHARES:
                    change *= 100 / earlier[name]
                loss = -change if name in HIGHER_IS_BETTER else change
                once = name == "compile s" or row.get("starts") == 1 or "who" in row
                noise = max(usual, ONCE) if once else usual
                found.append(
                    {
                        "of": " ".join(map(str, identity)),
                        "what": name,
                        "old": earlier[name],
                        "new": row[name],
                        "change %": change,
                        "noise %": noise,
                        "verdict": "WORSE" if loss > noise else "",
                    }
                )
    if not found:
        raise UserError(
            "the two files have nothing in common to compare; name two of step_throughput, "
            "input_throughput, startup, versus or tpu_estimate"
        )
    return found


def _by_identity(rows: list[report.Row]) -> dict[tuple, report.Row]:
    """Indexes rows by all values but floats, which are measured, and a count of equal ones."""
    alike, found = Counter(), {}
    for row in rows:
        identity = tuple(
            tuple(value) if isinstance(value, list) else value
            for value in row.values()
            if not isinstance(value, float)
        )
        alike[identity] += 1
        found[*identity, alike[identity]] = row
    return found


def _rows(path: str) -> list[report.Row]:
    try:
        return json.loads(pathlib.Path(path).read_text())["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no file that a benchmark kept with --out") from error


def main() -> int:
    """Compares the files and prints the table; returns 1 if something became worse."""
    found = compare(_rows(OLD.value), _rows(NEW.value), LEAST.value)
    report.show(found)
    return int(any(row["verdict"] for row in found))


if __name__ == "__main__":
    cli.run(main, required=["old", "new"])
