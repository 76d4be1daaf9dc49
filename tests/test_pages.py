"""Pages name what there is: messages of the code, functions in their files, flags of the commands, links."""

import ast
import json
import re
from pathlib import Path
from textwrap import indent

import pytest
from documents import PAGES, ROOT

from videomae_jax.data.layouts import LAYOUTS

DOCS = ROOT / "docs"
SOURCES = [*(ROOT / "videomae_jax").rglob("*.py"), *(ROOT / "convert").rglob("*.py")]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _rows(page: str) -> list[list[str]]:
    """The cells of each row of a page's tables."""
    lines = (DOCS / page).read_text("utf-8").splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]


def _text(node: ast.AST) -> str:
    """What a string literal says, with … in the place of each value."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def test_messages_that_are_explained_are_those_of_the_code():
    said = {_text(node) for path in SOURCES for node in ast.walk(ast.parse(path.read_text("utf-8")))}
    explained = [row[0].strip("`") for row in _rows("troubleshooting.md") if row[0].startswith("`")]
    assert len(explained) > 40
    assert [each for each in explained if not any(each in text for text in said)] == []


def test_what_a_video_goes_through_is_where_the_page_says():
    text, count = (DOCS / "video-to-loss.md").read_text("utf-8"), 0
    for names, path in re.findall(r"((?:`\w+`(?:, | \| | in\s+)?)+)\[[\w/.]+\]\((\S+?\.py)\)", text):
        source = (DOCS / path).read_text("utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(def|class) {name}\b", source, re.MULTILINE), f"{name} is not in {path}"
            count += 1
    assert count > 30


def test_the_trees_of_layouts_are_those_that_prepare_expects():
    text = (DOCS / "layouts.md").read_text("utf-8")
    for name, layout in LAYOUTS.items():
        tree = indent("\n".join(layout.expected), "    ")
        assert f"\n\n{tree}\n" in text, name
        assert f"`{name}`" in text or f"--layout {name} " in text or name == "video_list", name


@pytest.mark.parametrize("page", ["from-original.md", "choose-recipe.md", "own-data.md", "first-steps.md"])
def test_flags_of_ours_are_flags(page):
    """In the page on the original code, the first column has theirs."""
    known = {flag for flags in json.loads((ROOT / "tests/flags.json").read_text()).values() for flag in flags}
    text = (DOCS / page).read_text("utf-8")
    if page == "from-original.md":
        text = "\n".join(row[1] for row in _rows(page))
    named = {flag.replace("--augment.no-", "--augment.") for flag in re.findall(r"--[a-z][\w.-]*", text)}
    assert len(named) > 3
    assert named - known <= {"--version"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page):
    for link in _LINK.findall(page.read_text("utf-8")):
        file, _, heading = link.partition("#")
        if "://" in file:
            continue
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name} links to {link}"
        if heading:
            there = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in there]
            assert heading in anchors, f"{page.name} links to {link}"


def test_the_index_lists_every_page():
    listed = {(DOCS / link).resolve() for link in _LINK.findall((DOCS / "index.md").read_text("utf-8"))}
    pages = {path.resolve() for path in [*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")]}
    assert pages - listed == {Path(DOCS / "index.md").resolve()}
