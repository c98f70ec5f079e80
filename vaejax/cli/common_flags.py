"""Flags that several commands define."""

from absl import flags

from vaejax.errors import UserError

# --help then lists the flags defined here as those of the command that defines them.
flags.disclaim_key_flags()


def define_workdir() -> flags.FlagHolder[str | None]:
    """Defines `--workdir`, the work directory of an existing run."""
    return flags.DEFINE_string("workdir", None, "The work directory of the run.")


def define_checkpoint() -> flags.FlagHolder[str]:
    """Defines `--checkpoint`: `best`, `latest`, or a step."""
    return flags.DEFINE_string("checkpoint", "best", "best, latest, or a step.")


def define_decoder() -> flags.FlagHolder[str | None]:
    """Defines `--decoder`: `finished`, or `model` for the decoder before its finish."""
    return flags.DEFINE_enum(
        "decoder", None, ["model", "finished"], "Which decoder (default: the finished one, if any)."
    )


def define_data_path() -> flags.FlagHolder[str | None]:
    """Defines `--data_path`, which replaces the `data.path` of a run's config."""
    return flags.DEFINE_string("data_path", None, "Where the data lies now, if it was moved.")


def define_cache_dir() -> flags.FlagHolder[str | None]:
    """Defines `--cache_dir`, which replaces the `data.cache_dir` of a run's config."""
    return flags.DEFINE_string("cache_dir", None, "Where decoded pictures are kept.")


def define_temperature() -> flags.FlagHolder[list[str] | None]:
    """Defines `--temperature`, one number or several; `given_temperature` reads it."""
    return flags.DEFINE_list(
        "temperature",
        None,
        "Spread of the prior's noise; for a ladder also one for each resolution or group (default: "
        "those fitted to a ladder, else 1).",
    )


def given_temperature(flag: flags.FlagHolder[list[str] | None]) -> list[float] | None:
    """Returns the numbers of `--temperature`, None if it was not given.

    Raises:
      UserError: a word is no number.
    """
    if flag.value is None:
        return None
    try:
        return [float(word) for word in flag.value]
    except ValueError:
        raise UserError(f"--temperature={','.join(flag.value)} must be numbers") from None


def define_seed(meaning: str) -> flags.FlagHolder[int]:
    """Defines `--seed`, from 0 to 2^32 - 1; `meaning` is its help text."""
    return flags.DEFINE_integer("seed", 0, meaning, lower_bound=0, upper_bound=2**32 - 1)
