"""What every command shares: flags, config files, one-line errors."""

from vaejax.cli.entry import define_config, existing_run, given, require, run

__all__ = ["define_config", "existing_run", "given", "require", "run"]
