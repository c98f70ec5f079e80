"""The documentation builds without warnings; its links, names and messages are valid."""

import ast
import html.parser
import importlib.util
import re
import subprocess
import sys
import types
import urllib.parse
from pathlib import Path

import pytest
import test_imports
from commands import COMMAND_TIMEOUT, PACKAGE, REPOSITORY
from shown import DOCS, PAGES, blocks

from vaejax.config import settings

pytestmark = pytest.mark.slow


def without_mistakes(page: str) -> str:
    """Returns a page without its console blocks, whose commands may contain mistakes."""
    return re.sub(r"^```console.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Builds the site with the command of CONTRIBUTING.md, and returns its directory."""
    if not importlib.util.find_spec("sphinx"):
        pytest.skip("no Sphinx: pip install -e '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    # In a new directory: Sphinx does not repeat the warnings of pages it has built before.
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "docs", out],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=COMMAND_TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


class Links(html.parser.HTMLParser):
    """Collects the links of an HTML page, and the anchors that others may link to."""

    def __init__(self, path: Path):
        """Parses the page at `path`."""
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Adds the links and the anchor of one element."""
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.add(value)
            if name == "id" and value:
                self.anchors.add(value)


def test_every_link_of_the_site_has_a_target(site):
    pages = {path.resolve(): Links(path) for path in site.rglob("*.html")}
    checked = 0
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
            assert target.exists(), f"{path.name}: {link}"
            if parts.fragment and target in pages:
                anchor = urllib.parse.unquote(parts.fragment)
                assert anchor in pages[target].anchors, f"{path.name}: {link}"
            checked += 1
    assert checked > 500


def test_the_api_reference_contains_the_public_names(site):
    names = Links(site / "genindex.html").links
    for name in ("vaejax.load", "vaejax.TrainedModel.sample", "vaejax.data.open_dataset",
                 "vaejax.config.schema.TrainConfig", "vaejax.errors.UserError",
                 "vaejax.likelihoods.logistic.DiscretizedLogistic.log_prob",
                 "vaejax.priors.coupling_flow.CouplingFlow", "vaejax.metrics.image.ssim",
                 "vaejax.objectives.elbo.importance_bound"):  # fmt: skip
        assert any(link.endswith(f"#{name}") for link in names), name


def test_every_file_that_a_page_names_exists():
    links = files = 0
    for page, text in PAGES.items():
        for name in re.findall(r"\]\((?!http|#)([^)#]+)[)#]", text):
            assert (DOCS / name).exists() or "_generated" in name, f"{page}: {name}"
            links += 1
        shown = without_mistakes(text)
        for name in re.findall(r"(?:configs|tests|launch|docs|benchmarks)/[\w/]+\.\w+", shown):
            assert (REPOSITORY / name).exists(), f"{page}: {name}"
            files += 1
    assert links > 20 and files > 20


def test_the_table_of_contents_lists_every_page():
    listed = " ".join(blocks(PAGES["index"], "{toctree}")).split()
    assert PAGES.keys() - {"index"} <= set(listed)


def script(name: str) -> types.ModuleType:
    """Imports a script of docs/ that generates part of a page from the code."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Content generated from the code


def test_the_list_of_settings_is_the_schema():
    table = script("settings").tables()
    listed = re.findall(r"^(?:\| )?`(\w+\.\w+)` (?:\||is one of)", table, re.MULTILINE)
    assert set(listed) == set(settings.names())
    row = "| `train.steps_per_dispatch` | `1` | from 1 |  |"
    assert row in table
    assert (
        "| `likelihood.bits` | `8` | `5`, `8` | Of each value that count, the highest. |" in table
    )


def test_every_setting_that_a_page_names_exists():
    sections = "|".join({name.split(".")[0] for name in settings.names()})
    pattern = rf"(?:`|config\.)((?:{sections})\.[a-z_]+)(?![\w.(])"
    # The page `extending` adds settings.
    pages = [without_mistakes(text) for page, text in PAGES.items() if page != "extending"]
    named = [name for text in pages for name in re.findall(pattern, text)]
    assert len(named) > 50
    for name in named:
        settings.check_key(name)


def test_the_drawing_shows_the_imports_of_the_code():
    """Expects the imports that `test_imports.py` finds, and each subpackage above its imports."""
    architecture = script("architecture")
    imports = architecture.subpackages()
    expected: dict[str, set[str]] = {name: set() for name in test_imports.LAYER}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if name != "__init__":
            expected[name] |= {own.split(".")[0] for own in test_imports.imported(path)} - {name}
    assert imports == expected
    height = {name: depth for depth, layer in enumerate(architecture.layers(imports))
              for name in layer}  # fmt: skip
    assert all(height[name] < height[below] for name in imports for below in imports[name])
    drawing = architecture.drawing()
    assert all(f">{name}</text>" in drawing for name in imports)


def test_the_page_describes_every_subpackage():
    cells = re.findall(r"^\| (`.*?) \|", PAGES["architecture"], re.MULTILINE)
    described = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert described == set(test_imports.LAYER)


# Messages


def texts(path: Path) -> list[str]:
    """Returns the string literals of a file, with … in place of formatted values."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(
                part.value if isinstance(part, ast.Constant) else "…" for part in node.values
            ))  # fmt: skip
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def is_in_code(message: str, code: list[str]) -> bool:
    """Whether each piece of a message between its … is part of a string in the code.

    Pieces of at most three characters are ignored.
    """
    pieces = [piece.strip(" ;,.()") for piece in message.split("…")]
    return all(any(piece in text for text in code) for piece in pieces if len(piece) > 3)


def test_every_message_that_a_page_quotes_is_in_the_code():
    code = [text for path in PACKAGE.rglob("*.py") for text in texts(path)]
    quoted = 0
    for page in ("reading_a_run", "troubleshooting"):
        for quote in re.findall(r"(?:^>.*\n)+", PAGES[page], re.MULTILINE):
            message = " ".join(line.removeprefix("> ") for line in quote.splitlines())
            assert is_in_code(message, code), f"{page}: {message}"
            quoted += 1
    assert quoted > 20


def test_every_health_message_is_explained():
    """Searches the page for the start of each message, up to a formatted value or a colon.

    health.py yields pairs of a name and a message.
    """
    page = " ".join(re.findall(r"^> ?(.*)$", PAGES["reading_a_run"], re.MULTILINE))
    health = ast.parse((PACKAGE / "tasks" / "vae" / "health.py").read_text())
    yields = [node.value for node in ast.walk(health) if isinstance(node, ast.Yield)]
    assert len(yields) >= 6
    for node in yields:
        text = node.elts[1]
        start = text.values[0].value if isinstance(text, ast.JoinedStr) else text.value
        assert start.split(":")[0].strip() in page, start
    divergence = texts(PACKAGE / "tasks" / "vae" / "divergence.py")
    starts = [text.split("…")[0].strip() for text in divergence if "diverged:" in text]
    assert starts and all(start in page for start in starts)
