"""The wheel: one top-level name, all modules, and it lives beside PyPI's `watchdog`."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("ipc", "heartbeat", "lifecheck", "watchdog")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # The export keeps build/ and egg-info out of the working tree.
    source = out / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(bytes.decode, tracked)):
        original, copy = ROOT / name, source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if original.is_symlink():
            copy.symlink_to(original.readlink())
        elif original.exists():
            copy.write_bytes(original.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_one_top_level_name_and_every_module(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pgvigil"}
    packed = {name for name in names if name.startswith("pgvigil/") and name.endswith(".py")}
    on_disk = {f"pgvigil/{path.relative_to(ROOT)}" for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    tracked = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    on_disk &= {f"pgvigil/{name}" for name in tracked.split()}
    assert packed == on_disk | {"pgvigil/__init__.py"}
    assert "pgvigil/py.typed" in names


@pytest.mark.timeout(180)
def test_it_works_beside_the_other_watchdog(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    pip, python = tmp_path / "env/bin/pip", tmp_path / "env/bin/python"
    install = [str(pip), "install", "--quiet", "--disable-pip-version-check", "watchdog", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    code = (
        "import watchdog.observers, watchdog.events, pgvigil.watchdog.core.engine as ours;"
        "print(watchdog.observers.Observer.__name__, watchdog.__file__ != ours.__file__)"
    )
    shown = subprocess.run([str(python), "-c", code], cwd="/", capture_output=True, text=True, timeout=30)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.split()[1] == "True"
    command = subprocess.run(
        [str(tmp_path / "env/bin/pgvigil"), "--version"], cwd="/", capture_output=True, text=True, timeout=30
    )
    assert command.stdout.strip() == "pgvigil 0.1.0", command.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_link_leads_to_the_folder_of_its_name(folder: str) -> None:
    link = ROOT / "src/pgvigil" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder


def test_no_source_imports_a_folder_by_its_bare_name() -> None:
    bare = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(FOLDERS)})\b", re.MULTILINE)
    found = [
        str(path.relative_to(ROOT))
        for folder in (*FOLDERS, "tests")
        for path in (ROOT / folder).rglob("*.py")
        if bare.search(path.read_text())
    ]
    assert found == []
