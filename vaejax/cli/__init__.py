"""The parts that all commands share: flags, config files, and one-line errors."""

from vaejax.cli.common_flags import (
    define_cache_dir,
    define_checkpoint,
    define_data_path,
    define_decoder,
    define_seed,
    define_temperature,
    define_workdir,
    given_temperature,
)
from vaejax.cli.entry import define_config, existing_run, given, require, run

__all__ = [
    "define_cache_dir",
    "define_checkpoint",
    "define_config",
    "define_data_path",
    "define_decoder",
    "define_seed",
    "define_temperature",
    "define_workdir",
    "existing_run",
    "given",
    "given_temperature",
    "require",
    "run",
]
