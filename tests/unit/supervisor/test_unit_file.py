"""conf/pgvigil.service says what the supervisor does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from pgvigil.watchdog.supervisor import exits
from pgvigil.watchdog.supervisor.stopping import MAIN_LIMIT_NS, OTHERS_LIMIT_NS

UNIT = Path(__file__).parents[3] / "conf" / "pgvigil.service"


def setting(name: str) -> str:
    """The value of a key that stands there once."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return str(value)


def test_exit_codes_that_a_restart_cannot_heal() -> None:
    assert setting("RestartPreventExitStatus") == f"{exits.CONFIGURATION} {exits.ALREADY_RUNNING}"


def test_a_stop_has_the_time_that_it_may_take() -> None:
    longest_s = (max(MAIN_LIMIT_NS.values()) + 2 * OTHERS_LIMIT_NS) / 1e9
    assert int(setting("TimeoutStopSec").removesuffix("s")) > longest_s


def test_it_runs_without_root_and_in_the_foreground() -> None:
    assert setting("User") == "pgvigil"
    assert setting("CapabilityBoundingSet") == setting("AmbientCapabilities") == "CAP_NET_ADMIN CAP_NET_RAW"
    assert setting("Type") == "notify"
    assert setting("ExecStart").endswith("start --foreground")
    assert setting("RuntimeDirectoryMode") == "0700"


def test_systemd_understands_it_where_there_is_one(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/bin/pgvigil", "/bin/true"))
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert complaints == []
