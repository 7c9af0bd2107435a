"""Builds the guide from the pages of this repository, as they are on GitHub: `make docs`."""

import re
import shutil
import sys
from pathlib import Path

from pygments.lexers.sql import PostgresLexer
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
PLACES = ("docs", "deploy", "examples", "README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
sys.path.insert(0, str(ROOT))

from docs import directives  # noqa: E402
from fastpubsub import __version__  # noqa: E402

INDEX = "docs/index"
SECTION = re.compile(r"^## (.+)\n\n((?:(?:- |  ).+\n)+)", re.MULTILINE)
LINKED_PAGE = re.compile(r"\]\(([\w./-]+)\.md\)")
LINK = re.compile(r"\[([^]]+)\]\(([\w./-]+)\)")

SUMMARY = "Publish/subscribe over HTTP on nothing but PostgreSQL: topics, subscriptions, retries, dead letters."
ENTRANCE = """<!doctype html>
<meta charset="utf-8">
<title>fastpubsub</title>
<meta http-equiv="refresh" content="0; url=docs/index.html">
"""

project = "fastpubsub"
release = version = __version__
html_title = f"fastpubsub {__version__}"
extensions = ["myst_parser", "sphinx.ext.autodoc"]

root_doc = INDEX
include_patterns = [
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/**.md",
    "examples/**.md",
    "deploy/**.md",
]
exclude_patterns = [".*", "build", "dist", "fastpubsub", "migrations", "tests", "benchmarks"]

myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]

default_role = "literal"
autodoc_inherit_docstrings = False
autodoc_default_options = {
    "members": True,
    "inherited-members": "BaseModel, BaseException, BaseTransport, AsyncBaseTransport",
}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["guide.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "monokai"


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Makes the lists of the index the contents of the guide, which GitHub need not see."""
    if name == INDEX:
        for caption, items in SECTION.findall(source[0]):
            pages = "\n".join(f"/docs/{page}" for page in LINKED_PAGE.findall(items))
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def resolve_links(app: Sphinx, name: str, source: list[str]) -> None:
    """Leads links to a folder to its README; what the image does not have when it builds the guide is only named."""

    def resolve(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = ((ROOT / name).parent / target).resolve()
        place = path.relative_to(ROOT).parts[0] if path.is_relative_to(ROOT) else ""
        if place not in PLACES:
            return text
        if not path.is_dir():
            return link[0]
        return f"[{text}]({target.rstrip('/')}/README.md)" if (path / "README.md").exists() else text

    source[0] = LINK.sub(resolve, source[0])


def copy_pictures(app: Sphinx, error: Exception | None) -> None:
    """Copies those of `<picture>`, which Sphinx does not look into; and leads `/` to the index."""
    if error is None:
        shutil.copytree(ROOT / "docs/console", app.outdir / "docs/console", dirs_exist_ok=True)
        (app.outdir / "index.html").write_text(ENTRANCE)


def write_for_models(app: Sphinx, error: Exception | None) -> None:
    """Writes the pages in Markdown, and `llms.txt`, which lists them (llmstxt.org)."""
    if error is None:
        for name in app.env.found_docs:
            (app.outdir / f"{name}.md").write_text(directives.in_markdown((ROOT / f"{name}.md").read_text()))
        index = (ROOT / f"{INDEX}.md").read_text()
        lists = index[index.index("## ") :].replace("](", "](docs/").replace("](docs/../", "](")
        (app.outdir / "llms.txt").write_text(f"# fastpubsub\n\n> {SUMMARY}\n\n{lists}")


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
    app.connect("source-read", resolve_links)
    app.add_lexer("sql", PostgresLexer)
    app.connect("build-finished", copy_pictures)
    app.connect("build-finished", write_for_models)
    directives.setup(app)
