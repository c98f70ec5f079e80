"""Settings, hooks and fixtures for all tests: JAX, garbage collection, caches, real pictures."""

import gc
import os
import pathlib
import shutil
import signal
from importlib.metadata import version

# Set before JAX is imported. With two CPU devices, tests can check how arrays are sharded.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The package sets this when it imports TensorFlow. It is also set here, because `forked.py` forks
# processes only while such variables have the values that they had when it was imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Else the idle threads of OpenBLAS spin, and take the cores from the other workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# The programs of the tests run briefly: most of the time goes into compiling them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Operations of a program carry no Python traceback: no test needs it.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

if tuple(map(int, version("jax").split(".")[:2])) < (0, 11):
    # XLA's older code generator, without splitting modules for parallel code generation, halves the
    # compile time. Newer versions of JAX no longer have it.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )

import hypothesis
import jax
import pytest
from commands import REPOSITORY, command
from filelock import FileLock
from tiny import CONFIG_FILE

# pytest may run with SIGINT or SIGHUP ignored, as under `nohup` or as a background job. Child
# processes would inherit that, and a shell cannot trap a signal that was ignored when it started.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

# As in the commands (`vaejax/cli/entry.py`): tracing creates many short-lived objects, and each
# garbage collection would scan all imported modules, which live until the process ends. Full
# collections are rare, since the caches of programs grow from test to test.
gc.freeze()
gc.set_threshold(20_000, 20, 50)

# No deadline: the first example of a test compiles, and takes much longer than the others.
hypothesis.settings.register_profile("compiled", deadline=None)
hypothesis.settings.load_profile("compiled")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

REAL_FACES = REPOSITORY.parent / "shared" / "data"
# Limit for the compiled programs on disk, in bytes. One run of all tests writes about 1e8.
MOST_COMPILED = 1 << 30


# The slowest files start first; otherwise one worker might still run such a file when the others
# have finished.
LONGEST = ("readme", "kills", "finish", "versus", "benchmarks", "exploring", "old_runs", "aot",
           "pods", "task_runs", "picture_metrics", "disturbances", "docs", "interruptions",
           "flow_stage", "launch", "shards", "flags", "feeds", "docs_commands", "tpu_vm_worker",
           "commands", "compare", "generating", "bad_updates", "learning", "training",
           "ladder_training", "divergence", "checkpoints", "presets", "ladder", "step", "imports",
           "damaged_checkpoints")  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sorts the tests in xdist workers: files in `LONGEST` first, the others in their order."""
    if not hasattr(config, "workerinput"):
        return
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Returns the number of workers: three for two cores, but one for each 3 GiB of memory at most.

    Tests often wait for processes that they start, so workers may outnumber the cores. A worker
    takes about 2 GiB of memory.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores * 3 // 2, memory // (3 * 2**30)))


def pytest_collection_finish() -> None:
    """Exempts all that was imported from garbage collections, a tenth of one profile."""
    gc.collect()
    gc.freeze()


def compiled_in(config: pytest.Config) -> pathlib.Path:
    """Returns the directory of JAX's compilation cache, shared by all workers and later runs."""
    return pathlib.Path(config.cache.mkdir("compiled"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Empties the compilation cache if it is too large: programs of older code accumulate in it."""
    if not hasattr(session.config, "workerinput"):
        directory = compiled_in(session.config)
        if sum(path.stat().st_size for path in directory.iterdir()) > MOST_COMPILED:
            shutil.rmtree(directory)


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(request):
    """Turns on JAX's compilation cache here and in child processes; `--cache-clear` empties it."""
    directory = str(compiled_in(request.config))
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory):
    """Redirects the cache of decoded pictures from the user's cache to a temporary directory."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_faces() -> pathlib.Path:
    """Returns the directory of real faces beside the checkout; skips the test if it is absent."""
    if not REAL_FACES.is_dir():
        pytest.skip(f"the real faces are not here: {REAL_FACES}")
    return REAL_FACES


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> pathlib.Path:
    """Returns a work directory with a finished run of `tiny.py`; tests may add files to it.

    One xdist worker trains it for all; each has a copy.
    """
    mine = tmp_path_factory.getbasetemp()
    # The directory of a worker is in that of the whole session.
    shared = mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine
    finished = shared / "trained"
    with FileLock(shared / "trained.lock"):
        if not finished.is_dir():
            unfinished = tmp_path_factory.mktemp("runs") / "trained"
            result = command("main", f"--config={CONFIG_FILE}", f"--workdir={unfinished}")
            assert result.returncode == 0, result.stderr
            assert f"new faces: {unfinished / 'samples.png'}" in result.stderr
            assert "Traceback" not in result.stderr
            unfinished.rename(finished)
    return shutil.copytree(finished, tmp_path_factory.mktemp("copies") / "trained")


@pytest.fixture
def sklearn():
    """Imports the parts of scikit-learn that the references use; skips the test without it."""
    package = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    for part in ("ensemble", "linear_model", "metrics", "preprocessing", "svm"):
        pytest.importorskip(f"sklearn.{part}")
    return package
