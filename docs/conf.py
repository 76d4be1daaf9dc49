"""The site: `make docs`. Its source is the whole repository, so that links of a checkout work in it too."""

import re
import typing
from pathlib import Path

typing.GENERATING_DOCUMENTATION = "videomae_jax"  # jaxtyping then shows shapes, `Float[Array, "b n d"]`.

from sphinx.ext.napoleon import Config, GoogleDocstring  # noqa: E402

from videomae_jax.versions import version_of  # noqa: E402

project = "videomae-jax"
author = "The videomae-jax authors"
release = version_of("videomae-jax")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**",
    "notebooks/README.md",
    "benchmarks/README.md",
    "tests/golden/README.md",
]
exclude_patterns = [".*", "build", "dist", "runs"]
templates_path = ["templates"]
default_role = "code"

html_theme = "furo"
html_title = f"videomae-jax {release}"
html_additional_pages = {"index": "to_the_site.html"}
html_show_sphinx = False

myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "inherited-members": "Module, Mapping, dict",  # Of libraries; what comes from bases here is shown.
    "special-members": "__call__",
    "exclude-members": "setup, parent, name",
}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

_LINK = re.compile(r"\]\(([^)#:\s]+)\)")
_LISTED = re.compile(r"^[*-] \[[^\]]+\]\(([^)]+)\)", re.MULTILINE)
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


def _without_links_to_folders(app, docname, source):
    """A folder of the repository has no page: its name stays, without the link."""
    page = Path(app.env.doc2path(docname))
    if page.suffix == ".md":
        source[0] = re.sub(
            r"\[([^\]]+)" + _LINK.pattern,
            lambda link: link[1] if (page.parent / link[2]).is_dir() else link[0],
            source[0],
        )


def _sections_to_side_bar(app, docname, source):
    """What docs/index.md lists under a heading is also what the side bar has under it."""
    if docname != root_doc:
        return
    _, *parts = _SECTION.split(source[0])
    for title, listed in zip(parts[::2], parts[1::2], strict=True):
        entries = "\n".join(_LISTED.findall(listed))
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{entries}\n```\n"


def _without_fields_of_linen(app, what, name, thing, options, signature, returned):
    """Every Linen module can be given a parent and a name; nobody here has a use for them."""
    if what == "class" and signature:
        signature = re.sub(r", parent: .+?, name: [^,)]+", "", signature)
    return signature, returned


def _docstring_to_rst(app, what, name, thing, options, lines):
    """As sphinx.ext.napoleon, but for attributes, of which it takes the words before a colon for a type."""
    if what not in ("attribute", "property", "data"):
        lines[:] = str(GoogleDocstring(lines, Config(), app, what, name, thing, options)).splitlines()


def setup(app):
    app.connect("autodoc-process-docstring", _docstring_to_rst)
    app.connect("autodoc-process-signature", _without_fields_of_linen)
    app.connect("source-read", _without_links_to_folders)
    app.connect("source-read", _sections_to_side_bar)
