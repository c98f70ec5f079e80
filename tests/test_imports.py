"""Import rules: the layers of the package, and which modules import TensorFlow and Orbax."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "vaejax"
STEP_A_MODEL = """
import sys
import jax, numpy as np
import vaejax
from tiny import tiny
from vaejax.tasks.vae import vae_task
from vaejax.training.state import starting
from vaejax.training.step import make_train_step
from vaejax.runtime.mesh import make_mesh
config = tiny()
task, mesh = vae_task(config), make_mesh(config.train.batch_size)
images = np.zeros((1, config.train.batch_size, 28, 28, 3), np.uint8)
train_step = make_train_step(task, config.train, mesh)
carry, loss = train_step(jax.jit(starting(task))(jax.random.key(0)), {"image": images})
assert np.isfinite(loss)
loaded = [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "orbax")]
assert not loaded, loaded
"""


def test_a_model_is_built_and_stepped_without_tensorflow():
    here = pathlib.Path(__file__).parent
    subprocess.run([sys.executable, "-c", STEP_A_MODEL], check=True, cwd=here, timeout=300)


def test_only_their_modules_import_tensorflow_and_orbax():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if path.parent.name != "data":
            assert not re.search(r"^\s*(import|from) tensorflow", text, re.M), path
        if path.name != "checkpoints.py":
            assert not re.search(r"^\s*(import|from) orbax", text, re.M), path
        assert not re.search(r"(jax\._src|orbax[.\w]*\._src|optax\._src)", text), path


# From bottom to top: a module imports only from its own subpackage and from lower layers.
LAYERS = [
    {"errors", "version"},
    {"files"},
    {"config"},
    {"runtime"},
    {"records"},
    {"data"},
    {"likelihoods", "metrics", "objectives", "priors"},
    {"models"},
    {"tasks"},
    {"training"},
    {"trained"},
    {"stages"},
    {"cost"},
    {"cli"},
    {"main", "prepare", "sample", "evaluate", "fit", "explore", "aot"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def imported(path: pathlib.Path) -> set[str]:
    """Returns the vaejax modules that a file imports, such as `data.cache`, without `vaejax.`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vaejax":
            inner = node.module.removeprefix("vaejax").removeprefix(".")
            found |= {inner} if inner else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {name.name.removeprefix("vaejax.") for name in node.names
                      if name.name.startswith("vaejax.")}  # fmt: skip
    return {module for module in found if not module.startswith("__")}


def test_a_floor_imports_only_what_stands_below_it():
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if name == "__init__":
            continue
        for module in imported(path):
            below = module.split(".")[0]
            own_folder = below == name and path.parent != PACKAGE
            assert own_folder or LAYER[below] < LAYER[name], f"{path} imports {module}"


def test_within_data_sources_stand_below_the_cache_and_the_feed_apart():
    # For each subpackage of `vaejax.data`, those that it must not import.
    above = {"pictures": {"sources", "synthetic", "cache", "feed"}, "sources": {"cache", "feed"},
             "synthetic": {"pictures", "sources", "cache", "feed"}, "cache": {"feed"},
             "feed": {"pictures", "sources", "cache", "synthetic"}}  # fmt: skip
    for name, others in above.items():
        for path in (PACKAGE / "data" / name).glob("*.py"):
            names = {
                module.split(".")[1] for module in imported(path) if module.startswith("data.")
            }
            assert not names & others, path


@pytest.mark.parametrize("seconds", [0.1, 0.3])
def test_a_run_may_end_while_tensorflow_is_coming(seconds):
    """The exit must wait for the import: an interpreter that exits during it crashes."""
    code = (
        "import time\n"
        "from vaejax.data.lazy_tensorflow import import_tensorflow_meanwhile\n"
        f"import_tensorflow_meanwhile(); time.sleep({seconds}); raise SystemExit(2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 2, done.stderr
