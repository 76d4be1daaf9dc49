"""The code blocks of the project's pages, and how a test runs them: all of them, or a mark says why not.

A block that is indented by four spaces is shell, a line that starts with `$ ` a command among its output. A
fenced block names its language. The comment before a block changes what is done with it:

    <!-- not run: needs a TPU -->      read, its commands are parsed, and nothing more
    <!-- file: mine.py -->             written under this name, for the commands that follow

`python tests/documents.py` prints every command and snippet, with what becomes of it in the tests.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "notebooks/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
_MARK = re.compile(r"<!-- (not run|file): (.+?) -->")
_FENCE = re.compile(r"^(\s*)```(\w*)\s*$")


@dataclass(frozen=True)
class Block:
    """A piece of code on a page."""

    page: str
    line: int
    """Of its first line of code, from 1."""
    language: str
    """That of the fence; "shell" for an indented block."""
    text: str
    not_run: str | None = None
    """Why it is not run."""
    file: str | None = None
    """The name under which it is written instead of being run."""

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a shell block, in words, without comments and output."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [words for line in lines if (words := shlex.split(line, comments=True))]

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of every `videomae-jax COMMAND` in it, also inside of other commands."""
        flat = re.sub(r"\\\n\s*", "", self.text)
        found = re.findall(r"videomae-jax ((?:[a-z-]+ )[^\n\"&#]*)", flat)
        return [shlex.split(each) for each in found]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    name, lines = str(page.relative_to(ROOT)), page.read_text("utf-8").splitlines()
    blocks, mark, number = [], None, 0
    while number < len(lines):
        line = lines[number]
        if found := _MARK.fullmatch(line.strip()):
            mark = found
        elif fence := _FENCE.match(line):
            end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == "```")
            body = [each.removeprefix(fence[1]) for each in lines[number + 1 : end]]
            blocks.append(_block(name, number + 2, fence[2], body, mark))
            number, mark = end, None
        elif line.startswith("    ") and line.strip() and (not number or not lines[number - 1].strip()):
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            body = [each.removeprefix("    ") for each in lines[number:end]]
            blocks.append(_block(name, number + 1, "shell", body, mark))
            number, mark = end - 1, None
        elif line.strip():
            mark = None
        number += 1
    return blocks


def _block(page: str, line: int, language: str, body: list[str], mark: re.Match[str] | None) -> Block:
    said = {mark[1]: mark[2]} if mark else {}
    return Block(page, line, language, "\n".join(body).strip("\n"), said.get("not run"), said.get("file"))


LOOKED_UP = ("pip", "make", "python", "export")
"""Programs of which the tests only look up what is named: extras, targets, scripts, variables."""


def list_commands() -> None:
    """Print a line for each command and snippet: where it stands, what becomes of it, and what it is."""
    counts: dict[str, int] = {}
    for block in (block for page in PAGES for block in read_blocks(page)):
        is_shell = block.language == "shell" and not block.file
        for words in block.commands if is_shell else [[f"{block.language} snippet"]]:
            if block.not_run:
                how = "parsed"
            elif block.file:
                how = "written"
            else:
                how = "looked up" if words[0] in LOOKED_UP else "run"
            counts[how] = counts.get(how, 0) + 1
            reason = f"   ({block.not_run})" if block.not_run else ""
            print(f"{how:10} {block!s:36} {' '.join(words)}{reason}")
    print(", ".join(f"{count} {how}" for how, count in sorted(counts.items())))


if __name__ == "__main__":
    list_commands()
