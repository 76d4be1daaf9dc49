"""Completion of commands and their options in bash and zsh: a script, made from what --help says."""

import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout, suppress

_SCRIPT = """\
# videomae-jax {version}: bash, and zsh after `autoload -U bashcompinit && bashcompinit`.
_videomae_jax() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" options
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands} --help --version" -- "$word"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}}
complete -o filenames -F _videomae_jax videomae-jax
"""
_OPTION = re.compile(r"^[│|]? *(?:-\w, )?(--[a-z][\w.-]*)", re.MULTILINE)


def completion_script(commands: Iterable[str], run: Callable[[list[str]], int], version: str) -> str:
    """The script for commands of which `run` prints the help and ends."""
    options = {command: _options(command, run) for command in commands}
    return _SCRIPT.format(version=version, commands=" ".join(options), cases=_cases(options))


def _cases(options: Mapping[str, list[str]]) -> str:
    return "\n".join(f'    {command}) options="{" ".join(found)}" ;;' for command, found in options.items())


def _options(command: str, run: Callable[[list[str]], int]) -> list[str]:
    """The options in the help of a command, which is one column wide enough for the longest."""
    said, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with redirect_stdout(said), suppress(SystemExit):
            run([command, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return sorted(set(_OPTION.findall(said.getvalue())))
