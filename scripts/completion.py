"""Print a script that completes `unskew` in your shell: verbs, settings, and their values.

source <(unskew completion bash)                                     # in ~/.bashrc
source <(unskew completion zsh)                                      # in ~/.zshrc, after compinit
unskew completion fish > ~/.config/fish/completions/unskew.fish
the same command again                                               # after an update of Unskew
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

from unskew.errors import UserError
from unskew.schema import branches, kinds, locate, names, schema_of
from unskew.scripts.programs import PROGRAMS, settings_model
from unskew.settings import CommonFlags, config_path, run_program
from unskew.yaml_files import read_yaml

Options = Mapping[str, tuple[str, ...]]
"""Option -> the values that it may have; none where it is a path or a number."""


def main(argv: Sequence[str]) -> int:
    """Print the script for the shell that is named."""
    known = " or ".join(SHELLS)
    if list(argv) in (["-h"], ["--help"]):
        print(f"usage: unskew completion {{{','.join(SHELLS)}}}\n\n{(__doc__ or '').strip()}")
        return 0
    if len(argv) != 1 or argv[0] not in SHELLS:
        given = " ".join(argv) or "nothing"
        raise UserError(f"unskew completion must be followed by {known}, got {given}")
    print(SHELLS[argv[0]]({verb: options_of(verb) for verb in PROGRAMS}))
    return 0


def options_of(verb: str) -> Options:
    """What may stand after a verb: its settings by their dotted names, with closed lists."""
    row = PROGRAMS[verb]
    if not row.settings:
        return {**dict.fromkeys(row.options, ()), "--help": ()}
    schema, flags = schema_of(settings_model(verb)), schema_of(CommonFlags)["properties"]
    schema = {**schema, "properties": {**flags, **schema["properties"]}}
    values = read_yaml(config_path(row.config), "settings file")
    found = {}
    for name in names(schema, values):
        _, part, _ = locate(schema, name.split("."), values)
        listed = [str(v) for b in branches(part) for v in (*b.get("enum", ()), b.get("const"))]
        truth = ["true", "false"] if "boolean" in kinds(part) else []
        found[f"--{name}"] = tuple(v for v in (*listed, *truth) if v != "None")
    return {**found, "--help": ()}


def bash(verbs: Mapping[str, Options]) -> str:
    """For bash 4 and newer."""
    cases, values = [], []
    for verb, options in verbs.items():
        first = " ".join((*PROGRAMS[verb].words, *options))
        cases.append(f"    {verb}) words={shlex.quote(first)} ;;")
        values += [
            f"    {verb}:{option}) words={shlex.quote(' '.join(listed))} ;;"
            for option, listed in options.items()
            if listed
        ]
    return f"""\
_unskew() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
  if (( COMP_CWORD == 1 )); then
    words={shlex.quote(" ".join((*verbs, "--help", "--version")))}
  elif [[ $word != -* && $before == --* ]]; then
    case ${{COMP_WORDS[1]}}:$before in
{_lines(values)}
    esac
  else
    case ${{COMP_WORDS[1]}} in
{_lines(cases)}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _unskew unskew"""


def zsh(verbs: Mapping[str, Options]) -> str:
    """Through zsh's own reading of bash's completions."""
    return f"autoload -Uz bashcompinit && bashcompinit\n{bash(verbs)}"


def fish(verbs: Mapping[str, Options]) -> str:
    """A line for each verb and each option."""
    lines = ["complete -c unskew -n __fish_use_subcommand -f -l help -d 'list the verbs'"]
    lines += ["complete -c unskew -n __fish_use_subcommand -f -l version -d 'version and commit'"]
    for verb, options in verbs.items():
        seen = f"-n '__fish_seen_subcommand_from {verb}'"
        about = shlex.quote(PROGRAMS[verb].summary)
        lines.append(f"complete -c unskew -n __fish_use_subcommand -f -a {verb} -d {about}")
        lines += [f"complete -c unskew {seen} -f -a {word}" for word in PROGRAMS[verb].words]
        for option, listed in options.items():
            takes = f" -x -a {shlex.quote(' '.join(listed))}" if listed else ""
            lines.append(f"complete -c unskew {seen} -l {option[2:]}{takes}")
    return "\n".join(lines)


def _lines(cases: Sequence[str]) -> str:
    return "\n".join(f"  {case}" for case in cases)


SHELLS: Mapping[str, Callable[[Mapping[str, Options]], str]] = {
    "bash": bash,
    "zsh": zsh,
    "fish": fish,
}


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
