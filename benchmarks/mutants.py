"""Whether the tests notice small faults: `python -m benchmarks.mutants --count=60`.

Changes one place of the package at a time, in a copy of the repository: a comparison, an operator,
a constant, a condition. Then runs the tests, those files first whose imports lead soonest to the
changed module, until one fails (the fault is caught) or all have passed (it survives). Places are
drawn at random, as many from each room; the same seed draws the same of the same code.
"""

import shutil
import tempfile
import time
from pathlib import Path

from absl import flags

from benchmarks import report
from benchmarks.faults import PACKAGE, REPOSITORY, drawn, is_caught, path_of
from vaejax import cli
from vaejax.errors import UserError
from vaejax.records.progress import say
from vaejax.records.tables import Row

COUNT = flags.DEFINE_integer("count", 60, "Faults in all.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the places.")
FILES = flags.DEFINE_integer("files", 12, "Files of tests for each fault, nearest first.")
TIMEOUT = flags.DEFINE_float("timeout", 600.0, "Seconds for each fault, after which it is caught.")
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")


def main() -> int:
    """Prints what was caught, by room, and the faults that survived; exit status 1 if any did."""
    chosen = drawn(COUNT.value, SEED.value)
    how = {"files": FILES.value, "timeout": TIMEOUT.value}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory, "tree")
        shutil.copytree(
            REPOSITORY, tree, ignore=shutil.ignore_patterns(".git", "__pycache__", "runs", "_build")
        )
        module = chosen[0].module
        fails, test = is_caught(module, path_of(PACKAGE, module).read_text(), tree, **how)
        if fails:
            raise UserError(f"a test fails without any fault: {test}; mend that first")
        for number, fault in enumerate(chosen, 1):
            started = time.monotonic()
            caught, test = is_caught(fault.module, fault.source(), tree, **how)
            rows.append(
                {
                    "place": f"{fault.module}:{fault.line}",
                    "fault": f"`{fault.before}` → `{fault.after}`",
                    "caught by": test if caught else "",
                    "seconds": time.monotonic() - started,
                }
            )
            share = sum(bool(row["caught by"]) for row in rows)
            say(f"{number} of {len(chosen)}, {share} caught: {rows[-1]['place']}")
    report.show(rows)
    report.keep(rows, OUT.value)
    survived = [row for row in rows if not row["caught by"]]
    print(f"\ncaught: {len(rows) - len(survived)} of {len(rows)}")
    return 1 if survived else 0


if __name__ == "__main__":
    cli.run(main)
