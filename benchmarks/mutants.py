"""Whether the tests notice small faults: `python -m benchmarks.mutants --count=60`.

This is mutation testing. It changes one expression of the package at a time, in a copy of the
repository: a comparison, an arithmetic or boolean operator, or a constant. Then it runs the --files
test files that are nearest to the changed module by name and imports, until a test fails (the fault
is caught) or all have passed (it survives). Faults are drawn at random, as many from each
subpackage; the same seed draws the same faults from the same code.
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

COUNT = flags.DEFINE_integer("count", 60, "Number of faults.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the random choice of faults.")
FILES = flags.DEFINE_integer("files", 12, "Test files for each fault, nearest first.")
TIMEOUT = flags.DEFINE_float("timeout", 600.0, "Seconds for each fault, after which it is caught.")
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")


def main() -> int:
    """Prints which test caught each fault, and how many were caught; returns 1 if any survived."""
    chosen = drawn(COUNT.value, SEED.value)
    how = {"files": FILES.value, "timeout": TIMEOUT.value}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory, "tree")
        shutil.copytree(
            REPOSITORY, tree, ignore=shutil.ignore_patterns(".git", "__pycache__", "runs", "_build")
        )
        for module in {fault.subpackage: fault.module for fault in chosen}.values():
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
