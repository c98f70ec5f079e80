"""Import rules: the layers of the package, and which modules import TensorFlow and Orbax."""

import ast
import pathlib
import re
import subprocess
import sys

from commands import PACKAGE

STEP_A_MODEL = """
import sys
import jax, numpy as np
import vaejax
from tiny import least
from vaejax.tasks.vae import vae_task
from vaejax.training.state import starting
from vaejax.training.step import make_train_step
from vaejax.runtime.mesh import make_mesh
config = least()
task, mesh = vae_task(config), make_mesh(config.train.batch_size)
images = np.zeros((1, config.train.batch_size, 28, 28, 3), np.uint8)
train_step = make_train_step(task, config.train, mesh)
carry, loss = train_step(jax.jit(starting(task))(jax.random.key(0)), {"image": images})
assert np.isfinite(loss)
unwanted = {"tensorflow", "tensorflow_datasets", "orbax"}
assert unwanted.isdisjoint(name.split(".")[0] for name in sys.modules)
"""
EXIT_DURING_IMPORT = """
import sys, time
from vaejax.data.lazy_tensorflow import import_tensorflow_meanwhile
import_tensorflow_meanwhile()
while "tensorflow" not in sys.modules:
    time.sleep(0.01)
raise SystemExit(2)
"""
# The only modules that may import these libraries.
IMPORTERS = {
    "tensorflow": {"data/lazy_tensorflow.py"},
    "tensorflow_datasets": {"data/lazy_tensorflow.py"},
    "orbax": {"records/checkpoints.py"},
}
# From bottom to top: a module imports only from its own subpackage and from lower layers.
LAYERS = [
    {"errors", "version"},
    {"files"},
    {"config"},
    {"runtime"},
    {"records"},
    {"data"},
    {"likelihoods", "metrics", "objectives", "priors", "report"},
    {"features", "models"},
    {"evaluation"},
    {"tasks"},
    {"training"},
    {"trained"},
    {"stages"},
    {"cost"},
    {"cli"},
    {"main", "prepare", "sample", "evaluate", "compare", "fit", "explore", "aot"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
# For each subpackage of `vaejax.data`, those that it must not import.
NOT_IMPORTED_IN_DATA = {
    "pictures": {"sources", "synthetic", "cache", "feed"},
    "sources": {"cache", "feed"},
    "synthetic": {"pictures", "sources", "cache", "feed"},
    "cache": {"feed"},
    "feed": {"pictures", "sources", "cache", "synthetic"},
}


def names_in(node: ast.AST, package: list[str]) -> set[str]:
    """Returns the absolute names that an import statement imports; other nodes import none.

    Args:
      node: a node of a module's syntax tree.
      package: the package of the module, such as `["vaejax", "data"]`.
    """
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    parents = package[: len(package) + 1 - node.level] if node.level else []
    module = [*parents, *(node.module.split(".") if node.module else [])]
    return {".".join([*module, alias.name]) for alias in node.names}


def absolute_imports(path: pathlib.Path) -> set[str]:
    """Returns the absolute names that a file of the package imports, such as `jax.numpy`."""
    package = list(path.relative_to(PACKAGE.parent).parent.parts)
    tree = ast.walk(ast.parse(path.read_text()))
    return {name for node in tree for name in names_in(node, package)}


def imported(path: pathlib.Path) -> set[str]:
    """Returns what a file imports from vaejax, such as `data.cache.store`, without `vaejax.`."""
    own = {name.removeprefix("vaejax.") for name in absolute_imports(path)
           if name.startswith("vaejax.")}  # fmt: skip
    return {name for name in own if not name.startswith("__")}


def test_relative_imports_are_found():
    code = "from . import feed\nfrom .cache import store\nfrom ...errors import UserError\n"
    names = [names_in(node, ["vaejax", "data", "sources"]) for node in ast.parse(code).body]
    assert names == [
        {"vaejax.data.sources.feed"},
        {"vaejax.data.sources.cache.store"},
        {"vaejax.errors.UserError"},
    ]


def test_a_model_is_trained_without_importing_tensorflow_or_orbax():
    tests = pathlib.Path(__file__).parent
    subprocess.run([sys.executable, "-c", STEP_A_MODEL], check=True, cwd=tests, timeout=300)


def test_only_their_own_modules_import_tensorflow_and_orbax():
    found: dict[str, set[str]] = {library: set() for library in IMPORTERS}
    for path in PACKAGE.rglob("*.py"):
        for library in {name.split(".")[0] for name in absolute_imports(path)} & IMPORTERS.keys():
            found[library].add(path.relative_to(PACKAGE).as_posix())
    assert found == IMPORTERS


def test_no_module_uses_private_modules_of_libraries():
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"\b_src\b", path.read_text()), path


def test_a_layer_imports_only_lower_layers():
    checked = 0
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if name == "__init__":
            continue
        for module in imported(path):
            below = module.split(".")[0]
            same_subpackage = below == name and path.parent != PACKAGE
            assert same_subpackage or LAYER[below] < LAYER[name], f"{path} imports {module}"
            checked += 1
    assert checked > 300


def test_sources_do_not_import_the_cache_and_the_feed_imports_neither():
    for name, others in NOT_IMPORTED_IN_DATA.items():
        paths = list((PACKAGE / "data" / name).glob("*.py"))
        assert paths, name
        for path in paths:
            modules = [module.split(".") for module in imported(path)]
            assert not {parts[1] for parts in modules if parts[0] == "data"} & others, path


def test_a_process_may_exit_while_tensorflow_is_imported():
    """The exit must wait for the import: an interpreter that exits during it crashes."""
    done = subprocess.run(
        [sys.executable, "-c", EXIT_DURING_IMPORT], capture_output=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
