"""The scripts for EFM, run by the shell with programs of ours in PATH: what they ask of pgvigil, and how they end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "conf" / "efm"
SCRIPTS = (
    "pgvigil-efm",
    "load_balancer_attach.sh",
    "load_balancer_detach.sh",
    "post_promotion.sh",
    "follow_primary.sh",
)
BACKENDS = {
    "backends": [
        {"id": 0, "host": "pg01", "port": 5432, "status": "up", "role": "primary", "reason": "", "decision": 0,
         "pools": [{"node": 1, "label": "pg01", "status": "up", "role": "primary", "quarantined": False, "age_ms": 9}]},
        {"id": 1, "host": "pg02", "port": 5432, "status": "down", "role": "standby",
         "reason": 'said {"id": 9, "host": "pg09"', "decision": 3, "pools": []},
        {"id": 2, "host": "10.0.0.13", "port": 5432, "status": "up", "role": "standby", "reason": "", "pools": []},
        {"id": 3, "host": "10.0.0.13", "port": 5433, "status": "up", "role": "standby", "reason": "", "pools": []},
    ],
    "decided": 3, "agreed": True, "decisions": [{"number": 3, "kind": "down", "backend": 1, "commands": []}],
}  # fmt: skip
ADDRESSES = {"pg01": "10.0.0.11", "pg02": "10.0.0.12", "db-two": "10.0.0.12", "pg03": "10.0.0.13"}


class Machine:
    """A PATH with a pgvigil that writes down what it is asked and answers as told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "asked"
        self.codes = folder / "codes"
        self.codes.write_text("", encoding="ascii")
        (folder / "list.json").write_text(json.dumps(BACKENDS, ensure_ascii=False), encoding="utf-8")
        # An order takes the next exit code from the file, 0 when there is none left.
        self.program(
            "pgvigil",
            f"""
            case "$*" in "backend list --json") cat {folder}/list.json; exit 0 ;; esac
            echo "pgvigil $*" >> {self.log}
            code=$(head -n 1 {self.codes}); sed -i 1d {self.codes}; exit "${{code:-0}}"
        """,
        )
        hosts = "".join(
            f'{name}) echo "{address} STREAM"; echo "{address} DGRAM" ;; ' for name, address in ADDRESSES.items()
        )
        self.program("getent", f'case "$2" in {hosts} *) exit 2 ;; esac')
        self.program("sleep", "exit 0")
        self.program("logger", f'echo "logger $*" >> {folder}/logged')

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ("/bin/sh", str(FOLDER / script), *arguments),
            capture_output=True, text=True, timeout=60,
            env={"PATH": f"{self.folder}:/usr/bin:/bin", "PGVIGIL": "pgvigil", **environment},
        )  # fmt: skip

    def asked(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_syntax_and_mode(script: str) -> None:
    path = FOLDER / script
    assert subprocess.run(("/bin/sh", "-n", str(path)), capture_output=True, text=True, timeout=60).stderr == ""
    assert path.stat().st_mode & 0o777 == 0o755
    assert path.read_text(encoding="ascii").startswith("#!/bin/sh\n")


def test_no_script_is_left_out() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(SCRIPTS)


@pytest.mark.parametrize(
    ("host", "port", "code", "said"),
    [
        ("pg01", (), 1, "pg01 is backend 0, the primary"),
        ("10.0.0.11", (), 1, "10.0.0.11 is backend 0, the primary"),
        ("pg02", ("5432",), 0, "pg02 is backend 1, standby"),
        ("db-two", (), 0, "db-two is backend 1, standby"),
        ("pg03", ("5433",), 0, "pg03 is backend 3, standby"),
        ("pg03", (), 255, "several backends are on pg03; name the port"),
        ("pg01", ("6000",), 255, "no backend on pg01 port 6000; pgvigil knows: pg01:5432 pg02:5432"),
        ("pg09", (), 255, "no backend on pg09"),
    ],
)  # fmt: skip
def test_check_primary(machine: Machine, host: str, port: tuple[str, ...], code: int, said: str) -> None:
    done = machine.run("pgvigil-efm", "check_primary", host, *port)
    assert done.returncode == code and said in done.stdout + done.stderr
    assert machine.asked() == []


def test_without_an_answer_of_pgvigil_nothing_is_known(machine: Machine) -> None:
    (machine.folder / "list.json").write_text("", encoding="ascii")
    for arguments in (("check_primary", "pg01"), ("detach", "pg01")):
        done = machine.run("pgvigil-efm", *arguments)
        assert done.returncode == 255 and "pgvigil lists no backends" in done.stderr
    assert machine.run("load_balancer_detach.sh", "pg02", "s").returncode == 1
    assert machine.asked() == []


@pytest.mark.parametrize("operation", ["attach", "detach", "promote"])
def test_orders_go_by_id(machine: Machine, operation: str) -> None:
    done = machine.run("pgvigil-efm", operation, "10.0.0.12", "5432")
    assert done.returncode == 0, done.stderr
    assert machine.asked() == [f"pgvigil backend {operation} 1 --reason EFM:{operation}:10.0.0.12"]
    assert f"{operation} of 10.0.0.12 (backend 1) is done" in (machine.folder / "logged").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("answers", "code", "times"), [("4 4 0", 0, 3), ("4 4 4 0", 4, 3), ("1 0", 1, 1), ("3 0", 3, 1)]
)
def test_only_what_is_unknown_is_asked_again(machine: Machine, answers: str, code: int, times: int) -> None:
    machine.codes.write_text(answers.replace(" ", "\n") + "\n", encoding="ascii")
    done = machine.run("pgvigil-efm", "attach", "pg02")
    assert (done.returncode, len(machine.asked())) == (code, times)
    assert ("is done" if code == 0 else f"failed with exit code {code}") in done.stderr


def test_the_watchdog(machine: Machine) -> None:
    assert machine.run("pgvigil-efm", "watchdog").returncode == 0
    assert machine.run("pgvigil-efm", "watchdog", "--json").returncode == 0
    assert machine.asked() == ["pgvigil status", "pgvigil status --json"]


@pytest.mark.parametrize("arguments", [(), ("stop",), ("attach",), ("check_primary",), ("detach", "pg01", "1", "2")])
def test_usage(machine: Machine, arguments: tuple[str, ...]) -> None:
    done = machine.run("pgvigil-efm", *arguments)
    assert done.returncode == 2 and "check_primary HOST [PORT]" in done.stderr and "watchdog" in done.stderr
    assert machine.asked() == []


def test_anybody_but_root_goes_through_sudo(machine: Machine) -> None:
    machine.program("sudo", f'echo "sudo $*" >> {machine.folder}/sudo.log; shift; exec "$@"')
    for user, sudos in (("0", 0), ("998", 2)):
        machine.program("id", f"echo {user}")
        assert machine.run("pgvigil-efm", "attach", "pg02", PGVIGIL="").returncode == 0
        log = machine.folder / "sudo.log"
        lines = log.read_text(encoding="ascii").splitlines() if log.exists() else []
        assert len(lines) == sudos and all(line.startswith("sudo -n pgvigil backend ") for line in lines)


def test_a_command_of_several_words_reaches_pgvigil(machine: Machine) -> None:
    machine.program("far", 'shift; exec "$@"')
    assert machine.run("pgvigil-efm", "detach", "pg02", PGVIGIL="far away pgvigil").returncode == 0
    assert machine.asked() == ["pgvigil backend detach 1 --reason EFM:detach:pg02"]


def test_the_hooks_of_the_load_balancer(machine: Machine) -> None:
    assert machine.run("load_balancer_attach.sh", "pg02", "s").returncode == 0
    assert machine.run("load_balancer_detach.sh", "pg02", "s").returncode == 0
    primary = machine.run("load_balancer_detach.sh", "pg01", "p")
    assert primary.returncode == 0 and "left to the promotion" in primary.stdout
    assert machine.asked() == [
        "pgvigil backend attach 1 --reason EFM:attach:pg02",
        "pgvigil backend detach 1 --reason EFM:detach:pg02",
    ]


def test_after_a_promotion(machine: Machine) -> None:
    assert machine.run("post_promotion.sh", "10.0.0.12", "10.0.0.11").returncode == 0
    assert machine.run("post_promotion.sh", "pg01", "pg02").returncode == 0
    orders = [line.split(" --reason")[0] for line in machine.asked()]
    assert orders == ["pgvigil backend attach 1", "pgvigil backend promote 1", "pgvigil backend attach 0"]
    machine.codes.write_text("1\n", encoding="ascii")
    assert machine.run("post_promotion.sh", "10.0.0.12", "10.0.0.11").returncode == 1
    assert len(machine.asked()) == 4


def test_follow_primary_waits_for_the_standby(machine: Machine) -> None:
    machine.codes.write_text("2\n1\n0\n", encoding="ascii")
    machine.program("pg_isready", f"echo asked >> {machine.folder}/ready; code=$(head -n 1 {machine.codes}); "
                                  f"sed -i 1d {machine.codes}; exit $code")  # fmt: skip
    done = machine.run("follow_primary.sh", "pg02", "5432")
    assert (done.returncode, done.stdout) == (0, "pg02:5432 answers\n")
    assert (machine.folder / "ready").read_text(encoding="ascii").count("asked") == 3
    assert machine.run("follow_primary.sh", "pg02").returncode == 2
    (machine.folder / "pg_isready").unlink()
    unseen = machine.run("follow_primary.sh", "pg02", "5432", PATH=str(machine.folder))
    assert (unseen.returncode, unseen.stdout) == (0, "pg_isready is not installed here: pg02:5432 is attached unseen\n")
