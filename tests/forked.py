"""Processes forked from a server that has imported everything: a start takes a moment.

Each still is a process of its own, with its own environment, streams, signals and JAX backend.
"""

import functools
import gc
import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

import jax

# Before the fork: what takes seconds to import, and starts neither threads nor a backend.
PRELOADED = ["forked", "tensorflow", "vaejax.training.loop", "vaejax.stages.finishing"]
# Libraries read such variables when they are imported.
READ_EARLY = ("JAX_", "XLA_", "TF_", "LIBTPU", "ORBAX_", "PYTHON")
# Of these JAX lets itself be told later.
OF_JAX = (
    "JAX_NUM_CPU_DEVICES",
    "JAX_PLATFORMS",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


def read_early(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that are as they were when the server began, for all that it forks."""
    return {
        name: value
        for name, value in env.items()
        if name.startswith(READ_EARLY) and name not in OF_JAX
    }


# The server's, which begins with the first process that may come from it.
OF_SERVER = read_early(os.environ)


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether a process in this environment may come from the server, which has its own."""
    return all(name in env for name in OF_JAX) and read_early(env) == OF_SERVER


class Forked:
    """A forked `python -m MODULE FLAGS`, with the part of `subprocess.Popen` that tests use."""

    def __init__(
        self, module: str, flags: Sequence[str], env: Mapping[str, str], cwd: pathlib.Path | None
    ):
        """Starts it."""
        self.args = [module, *flags]
        context = _server()
        pipes = [context.Pipe(duplex=False) for _ in range(2)]
        writers = [writer for _, writer in pipes]
        self._process = context.Process(
            target=_run, args=(module, list(flags), dict(env), str(cwd or os.getcwd()), *writers)
        )
        self._process.start()
        for writer in writers:
            writer.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(reader.fileno())) for reader, _ in pipes)
        for reader, _ in pipes:
            reader.close()
        self.pid = self._process.pid
        self._readers: list[_Reader] = []

    @property
    def returncode(self) -> int | None:
        """As of `Popen`; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end.

        Raises:
          TimeoutExpired: it has not ended.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for its end, and gives what it has printed since it was last read."""
        if not self._readers:
            self._readers = [_Reader(stream) for stream in (self.stdout, self.stderr)]
        self.wait(timeout)
        return tuple(reader.result() for reader in self._readers)

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)


class _Reader(threading.Thread):
    def __init__(self, stream):
        super().__init__(daemon=True)
        self._stream, self._text = stream, ""
        self.start()

    def run(self) -> None:
        self._text = self._stream.read()
        self._stream.close()

    def result(self) -> str:
        self.join()
        return self._text


@functools.cache
def _server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _run(module, flags, env, cwd, out, err):
    """The forked process: a module run as `python -m` runs it."""
    os.environ.clear()
    os.environ.update(env)
    # Else it would begin anew for other pages of memory, and import all over again.
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=0"
    # What was imported lives to the end: collections need not walk through it, and may be rare.
    gc.freeze()
    gc.set_threshold(20_000)
    os.chdir(cwd)
    for number, stream in ((1, out), (2, err)):
        os.dup2(stream.fileno(), number)
        stream.close()
    for variable in OF_JAX:
        name = variable.lower()
        kind = type(getattr(jax.config, name))
        jax.config.update(name, kind(env[variable]) if kind in (int, float) else env[variable])
    sys.argv = [module, *flags]
    sys.path.insert(0, cwd)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
