"""Flags that several commands have."""

from absl import flags

# What is defined here is listed by --help among the flags of the command that asked for it.
flags.disclaim_key_flags()


def define_workdir() -> flags.FlagHolder[str | None]:
    """Defines `--workdir` of a command that uses a run."""
    return flags.DEFINE_string("workdir", None, "The work directory of the run.")


def define_checkpoint() -> flags.FlagHolder[str]:
    """Defines `--checkpoint`."""
    return flags.DEFINE_string("checkpoint", "best", "best, latest, or a step.")


def define_data_path() -> flags.FlagHolder[str | None]:
    """Defines `--data_path`."""
    return flags.DEFINE_string("data_path", None, "Where the data lies now, if it was moved.")


def define_cache_dir() -> flags.FlagHolder[str | None]:
    """Defines `--cache_dir`."""
    return flags.DEFINE_string("cache_dir", None, "Where decoded pictures are kept.")


def define_seed(meaning: str) -> flags.FlagHolder[int]:
    """Defines `--seed`; `meaning` says of what."""
    return flags.DEFINE_integer("seed", 0, meaning, lower_bound=0, upper_bound=2**32 - 1)
