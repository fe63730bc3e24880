"""Completion for bash, zsh and fish, made from the table of commands.

The scripts are static text: pressing Tab starts no Python and asks no node.
"""

from __future__ import annotations

import argparse

from pgvigil.watchdog.cli import codes
from pgvigil.watchdog.cli.parser import COMMANDS, GLOBAL, Argument, Command


def completion(options: argparse.Namespace) -> int:
    """Print one of them."""
    print({"bash": bash, "zsh": zsh, "fish": fish}[options.shell](), end="")
    return codes.OK


def _words(arguments: tuple[Argument, ...]) -> list[str]:
    """Options and fixed words of positionals."""
    words: list[str] = []
    for argument in arguments:
        options = [name for name in argument.names if name.startswith("-")]
        words += options or argument.choices
    return words


def _takes_file(arguments: tuple[Argument, ...]) -> bool:
    return any(argument.files and not argument.names[0].startswith("-") for argument in arguments)


def bash() -> str:
    """A bash function and its registration."""
    globals_ = " ".join([*_words(GLOBAL), "--help", "--version"])
    names = " ".join(command.name for command in COMMANDS)
    cases = "\n".join(_bash_case(command) for command in COMMANDS)
    return f"""# bash completion of pgvigil
_pgvigil() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="" command="" index
    [ "$COMP_CWORD" -gt 0 ] && before="${{COMP_WORDS[COMP_CWORD-1]}}"
    for ((index = 1; index < COMP_CWORD; index++)); do
        case "${{COMP_WORDS[index]}}" in
            -c|--config|--node-id) index=$((index + 1)) ;;
            -*) ;;
            *) command="${{COMP_WORDS[index]}}"; break ;;
        esac
    done
    case "$before" in
        -c|--config|--password-file|--state) COMPREPLY=($(compgen -f -- "$word")); return ;;
        --node-id|--timeout|--node|--host|--port|--user|--run|--keep|--jobs|--limit|--settle) COMPREPLY=(); return ;;
        -m|--mode) COMPREPLY=($(compgen -W "smart fast immediate" -- "$word")); return ;;
        --batch) COMPREPLY=($(compgen -W "half 1" -- "$word")); return ;;
        --on-failure) COMPREPLY=($(compgen -W "hold leave attach" -- "$word")); return ;;
    esac
    case "$command" in
        "") COMPREPLY=($(compgen -W "{names} {globals_}" -- "$word")) ;;
{cases}
    esac
}}
complete -o filenames -F _pgvigil pgvigil
"""


def _bash_case(command: Command) -> str:
    words = " ".join([*_words(command.arguments), *_words(GLOBAL), "--help"])
    files = ' $(compgen -f -- "$word")' if _takes_file(command.arguments) else ""
    return f'        {command.name}) COMPREPLY=($(compgen -W "{words}" -- "$word"){files}) ;;'


def zsh() -> str:
    """A zsh completion function, for a file `_pgvigil` in fpath."""
    commands = "\n".join(f"        '{command.name}:{_quote(command.summary)}'" for command in COMMANDS)
    cases = "\n".join(_zsh_case(command) for command in COMMANDS)
    shared = " \\\n        ".join(_zsh_spec(argument) for argument in GLOBAL)
    return f"""#compdef pgvigil
_pgvigil() {{
    local curcontext="$curcontext" state line
    local -a commands=(
{commands}
    )
    _arguments -C \\
        {shared} \\
        '--help[show help]' '--version[show the version]' \\
        '1: :->command' '*:: :->argument'
    case "$state" in
        command) _describe command commands ;;
        argument)
            case "$line[1]" in
{cases}
            esac ;;
    esac
}}
compdef _pgvigil pgvigil
"""


def _zsh_case(command: Command) -> str:
    specs = " ".join([*(_zsh_spec(argument) for argument in (*command.arguments, *GLOBAL)), "'--help[show help]'"])
    return f"                {command.name}) _arguments {specs} ;;"


def _zsh_spec(argument: Argument) -> str:
    values = ":file:_files" if argument.files else f":value:({' '.join(argument.choices)})"
    if not argument.names[0].startswith("-"):
        return f"'{values}'" if argument.choices or argument.files else f"':{_quote(argument.help)}:'"
    names = argument.names[0] if len(argument.names) == 1 else ""
    value = "" if argument.flag else values
    help_text = f"[{_quote(argument.help)}]{value}"
    if names:
        return f"'{names}{help_text}'"
    return f"'({' '.join(argument.names)})'{{{','.join(argument.names)}}}'{help_text}'"


def fish() -> str:
    """Lines for ~/.config/fish/completions/pgvigil.fish."""
    lines = ["# fish completion of pgvigil", "complete -c pgvigil -f"]
    lines += [_fish_option("", argument) for argument in GLOBAL]
    for command in COMMANDS:
        lines.append(f"complete -c pgvigil -n __fish_use_subcommand -a {command.name} -d '{_quote(command.summary)}'")
        condition = f"-n '__fish_seen_subcommand_from {command.name}'"
        lines += [_fish_option(condition, argument) for argument in command.arguments]
    return "\n".join(lines) + "\n"


def _fish_option(condition: str, argument: Argument) -> str:
    parts = ["complete -c pgvigil", condition] if condition else ["complete -c pgvigil"]
    for name in argument.names:
        if name.startswith("--"):
            parts.append(f"-l {name[2:]}")
        elif name.startswith("-"):
            parts.append(f"-s {name[1:]}")
    if argument.names[0].startswith("-") and not argument.flag:
        parts.append("-r")
    if argument.files:
        parts.append("-F")
    if argument.choices:
        parts.append(f"-a '{' '.join(argument.choices)}'")
    return " ".join([*parts, f"-d '{_quote(argument.help)}'"])


def _quote(text: str) -> str:
    """Text inside single quotes and brackets of a shell."""
    return text.replace("'", "").replace("[", "(").replace("]", ")").replace(":", "")
