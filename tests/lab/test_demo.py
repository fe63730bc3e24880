"""The demo as a person runs it: exit code, summary, nothing left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

import pytest

from pgvigil.watchdog.demo import run as commands

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

DEMO = (sys.executable, "-m", "pgvigil.watchdog.demo.demo", "--slack-ms", "2000")


def _left_by(pid: int) -> list[str]:
    return [name for name in os.listdir(commands.NETNS_DIR) if name.startswith(f"pgvlab-{pid}-")]


def test_the_demo_holds_and_cleans_up() -> None:
    process = subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True, start_new_session=True)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    assert "FAILED" not in output
    assert "ms without an answer" in output
    assert _left_by(process.pid) == []


def test_a_held_demo_says_how_to_look_around_and_ends_at_a_signal() -> None:
    process = subprocess.Popen(
        (*DEMO, "--hold"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output = _read_until(process, "files: ", 180)
        assert "ip netns exec" in output and "psql" in output
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert _left_by(process.pid) == []


def _read_until(process: subprocess.Popen[str], text: str, limit_s: float) -> str:
    assert process.stdout is not None
    output = ""
    end = time.monotonic() + limit_s
    while text not in output and time.monotonic() < end:
        if select.select([process.stdout], [], [], 0.5)[0]:
            data = os.read(process.stdout.fileno(), 65536)  # not readline: its buffer hides lines from select
            if not data:
                break
            output += data.decode()
    assert text in output, output
    return output
