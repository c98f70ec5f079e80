"""Parses and checks the flags of a command without running it: `python -m parsed MODULE FLAGS`."""

import runpy
import sys

from vaejax import cli

if __name__ == "__main__":
    run = cli.run
    cli.run = lambda command, required=(), **how: run(lambda *_: None, required, **how)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
