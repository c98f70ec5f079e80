"""Strictness for every test, and the real faces where they lie beside the checkout."""

import gc
import os
import pathlib
import shutil
import signal

# Before JAX is imported. Two devices on the CPU, so that what is sharded is seen to be.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As the package sets it, with the first batch: processes are forked only where nothing has changed.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Programs here run for moments: most of the tests' time goes into compiling them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Nobody looks for where in Python an operation of a program comes from.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import hypothesis
import jax
import pytest
from commands import command
from tiny import CONFIG_FILE

if jax.__version_info__ < (0, 11):
    # XLA's older code generator, one module at a time: half the time again. Later it is no more.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )

# Whoever runs the tests may ignore an interrupt or the end of a terminal, as `nohup` and background
# jobs do. Children would inherit that, and a shell cannot trap what was ignored when it began.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

# As commands do: tracing makes many short-lived objects, and what was imported lives to the end.
gc.freeze()
gc.set_threshold(20_000)

# An example's first run compiles, which no deadline foresees.
hypothesis.settings.register_profile("compiled", deadline=None)
hypothesis.settings.load_profile("compiled")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).parents[1]
REAL_FACES = REPOSITORY.parent / "shared" / "data"
# Bytes of compiled programs, of which one run of all tests makes some hundred million.
MOST_COMPILED = 1 << 30


# Files whose tests take minutes begin first, so that no worker is left alone with one at the end.
LONGEST = ("benchmarks", "task_runs", "versus", "interruptions", "pods", "exploring", "commands",
           "flow_stage", "library_errors", "checkpoints", "ladder", "flags", "learning", "kills",
           "tpu_vm", "aot", "readme", "bad_updates", "mistakes", "old_runs", "divergence", "docs",
           "feeds", "same_data", "training", "launch")  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sorts the files, where workers share them: the longest first, the others as they are."""
    if not hasattr(config, "workerinput"):
        return
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three for two cores, for tests wait for what they start; each takes some 2 GiB of memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores * 3 // 2, memory // (3 * 2**30)))


def compiled_in(config: pytest.Config) -> pathlib.Path:
    """Where compiled programs are kept, for all processes, workers and later runs of the tests."""
    return pathlib.Path(config.cache.mkdir("compiled"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Forgets compiled programs where those of other code have become many."""
    if not hasattr(session.config, "workerinput"):
        directory = compiled_in(session.config)
        if sum(path.stat().st_size for path in directory.iterdir()) > MOST_COMPILED:
            shutil.rmtree(directory)


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(request):
    """Keeps compiled programs; `pytest --cache-clear` forgets them."""
    directory = str(compiled_in(request.config))
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory):
    """Keeps decoded pictures out of the user's own cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_faces() -> pathlib.Path:
    """The folder of real faces; skips where it is absent."""
    if not REAL_FACES.is_dir():
        pytest.skip(f"the real faces are not here: {REAL_FACES}")
    return REAL_FACES


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> pathlib.Path:
    """A run of `tiny.py` that the command has trained to its end. Tests may add to it."""
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    result = command("main", f"--config={CONFIG_FILE}", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    assert f"new faces: {workdir / 'samples.png'}" in result.stderr
    assert "Traceback" not in result.stderr
    return workdir
