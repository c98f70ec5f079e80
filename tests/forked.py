"""Forks processes from a server that has imported all libraries, because imports take seconds.

A forked process has its own environment, streams, signals and JAX backend, like a new process.
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

# The modules that the server imports before it forks. Their import takes seconds, but starts no
# threads and no JAX backend, so that it is safe to fork.
PRELOADED = ["forked", "tensorflow", "vaejax.training.loop", "vaejax.stages.concluding"]
# Prefixes of the variables that libraries read when they are imported.
READ_EARLY = ("JAX_", "XLA_", "TF_", "LIBTPU", "ORBAX_", "PYTHON")
# Variables with these prefixes that `_run` can set after the fork, as options of `jax.config`.
OF_JAX = (
    "JAX_NUM_CPU_DEVICES",
    "JAX_PLATFORMS",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


def read_early(env: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that a forked process cannot change: the imports have read them."""
    return {
        name: value
        for name, value in env.items()
        if name.startswith(READ_EARLY) and name not in OF_JAX
    }


# The server's variables. It starts with the first forked process, and `can_fork` requires that they
# have not changed since this module was imported.
OF_SERVER = read_early(os.environ)


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether a process with this environment can be forked from the server."""
    return all(name in env for name in OF_JAX) and read_early(env) == OF_SERVER


class Forked:
    """A forked `python -m MODULE FLAGS` with those methods of `subprocess.Popen` that tests use."""

    def __init__(
        self, module: str, flags: Sequence[str], env: Mapping[str, str], cwd: pathlib.Path | None
    ):
        """Starts the process, by default in the current directory."""
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
        """The exit status as in `Popen`, None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns the exit status, None while the process runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits until the process has ended, and returns its exit status.

        Raises:
          TimeoutExpired: it has not ended after `timeout` seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits until the process has ended; returns what was not yet read of stdout and stderr."""
        if not self._readers:
            self._readers = [_Reader(stream) for stream in (self.stdout, self.stderr)]
        self.wait(timeout)
        return tuple(reader.result() for reader in self._readers)

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL, unless the process has ended."""
        self.send_signal(signal.SIGKILL)


class _Reader(threading.Thread):
    """Reads a stream to its end in a thread, so that a full pipe does not block the process."""

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
    """Runs a module in the forked process as `python -m` does."""
    os.environ.clear()
    os.environ.update(env)
    # Otherwise a command would restart itself to use huge pages, and import everything again.
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=0"
    # Imported modules live to the end, so garbage collections need not scan them. Collections are
    # also made rarer, because tracing creates many short-lived objects.
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
