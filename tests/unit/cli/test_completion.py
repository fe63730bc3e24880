"""Completion: the shells accept the scripts, and bash completes what it should."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from pgvigil.watchdog.cli import completion
from pgvigil.watchdog.cli.parser import COMMANDS


def test_every_script_knows_every_command_and_long_option() -> None:
    for script in (completion.bash(), completion.zsh(), completion.fish()):
        for command in COMMANDS:
            assert command.name in script
            for argument in command.arguments:
                for name in argument.names:
                    if name.startswith("--"):
                        assert name[2:] in script


def complete(*words: str) -> list[str]:
    """What bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""{completion.bash()}
COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _pgvigil; printf '%s\\n' "${{COMPREPLY[@]}}\""""
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert not answer.stderr
    return answer.stdout.split()


def test_bash_completes() -> None:
    assert complete("pgvigil", "st") == ["start", "stop", "status"]
    assert complete("pgvigil", "-c", "x", "status", "--j") == ["--json"]
    assert complete("pgvigil", "stop", "-m", "") == ["smart", "fast", "immediate"]
    assert complete("pgvigil", "completion", "z") == ["zsh"]
    assert complete("pgvigil", "node", "")[:3] == ["add", "remove", "leave"]
    assert "--version" in complete("pgvigil", "--")
    assert "/etc/passwd" in complete("pgvigil", "check", "--config", "/etc/passw")


@pytest.mark.parametrize(("shell", "make"), [("zsh", completion.zsh), ("fish", completion.fish)])
def test_other_shells_accept_their_script_where_they_are_installed(shell: str, make: object) -> None:
    path = shutil.which(shell)
    assert callable(make)
    script = make()
    assert script.count("'") % 2 == 0
    if path is not None:
        subprocess.run([path, "-n"], input=script, text=True, timeout=20, check=True)
