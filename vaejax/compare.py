"""Compares evaluated runs: `python -m vaejax.compare RUN RUN …`."""

from absl import flags

from vaejax import cli
from vaejax.errors import UserError
from vaejax.files.paths import local_path

SPLIT = flags.DEFINE_enum("split", "valid", ["train", "valid", "test"], "Which evaluations.")
REPORT = flags.DEFINE_string(
    "report", None, "An HTML file to write: the table, and the runs' pictures side by side."
)
DATA_PATH = cli.define_data_path()
CACHE_DIR = cli.define_cache_dir()


def main(runs: list[str]) -> None:
    """Prints one table of the runs' newest evaluations, and the differences with their spreads."""
    if len(runs) < 2:
        raise UserError("name two runs or more: python -m vaejax.compare runs/a runs/b")
    workdirs = [cli.existing_run(run, "run ") for run in runs]
    report = local_path("--report", REPORT.value) if REPORT.value else None
    from vaejax.trained.comparing import compare

    compare(workdirs, SPLIT.value, report, data_path=DATA_PATH.value, cache_dir=CACHE_DIR.value)


if __name__ == "__main__":
    cli.run(main, takes_arguments=True)
