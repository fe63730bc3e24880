"""Reloads of a supervisor with real processes and stub children, and what systemd is told meanwhile."""

from __future__ import annotations

import os
import re
import signal
import socket
import time

import pytest
from tests.live.nodes import Node, wait_for
from tests.live.stubs import events, wait_event

from pgvigil.watchdog.supervisor import exits

pytestmark = pytest.mark.live

# --- reload -----------------------------------------------------------------------------------------------


def test_a_bad_reload_changes_nothing_and_says_why(stub_node: Node) -> None:
    stub_node.start()
    before = stub_node.processes()
    good = stub_node.config.read_text()
    stub_node.config.write_text(good.replace("hang_timeout_ms", "hang_timeout"))
    stub_node.signal(signal.SIGHUP)
    stub_node.wait_log("reload refused, nothing changes.*hang_timeout")
    wait_event(stub_node, "watchdog main .* reload False")
    stub_node.config.write_text(good.replace('name = "live"', 'name = "other"'))
    stub_node.signal(signal.SIGHUP)
    stub_node.wait_log("cluster.name cannot change from 'live' to 'other' while pgvigil runs, because")
    assert stub_node.processes() == before


def test_a_reload_without_changes_restarts_nothing(stub_node: Node) -> None:
    stub_node.start()
    before = stub_node.processes()
    stub_node.signal(signal.SIGHUP)
    stub_node.wait_log("configuration reloaded.*nothing has changed")
    wait_event(stub_node, "watchdog main .* reload True")
    assert stub_node.processes() == before


def test_a_reload_restarts_only_what_has_changed(stub_node: Node) -> None:
    stub_node.start()
    before = stub_node.processes()
    text = stub_node.config.read_text()
    stub_node.config.write_text(text + "[heartbeat]\ninterval_ms = 150\n")
    stub_node.signal(signal.SIGHUP)
    stub_node.wait_log("configuration reloaded.*restarted: .*heartbeat sender lo")
    wait_for("all processes", lambda: len(stub_node.processes()) == 4)
    # Whether lifecheck's part changes is the loader's business; watchdog main is given all settings.
    wait_event(stub_node, "watchdog main .* reload True")
    after = stub_node.processes()
    assert after["heartbeat sender lo"] != before["heartbeat sender lo"]
    assert after["watchdog main"] != before["watchdog main"]
    assert " stop " not in events(stub_node)
    assert "released" not in events(stub_node)
    wait_event(stub_node, "report .*watchdog main=running/0")


def test_a_reload_applies_the_log_level(stub_node: Node) -> None:
    stub_node.start()
    text = stub_node.config.read_text()
    stub_node.config.write_text(text.replace('log_level = "debug"', 'log_level = "error"'))
    stub_node.signal(signal.SIGHUP)
    wait_event(stub_node, "watchdog main .* reload True")
    length = len(stub_node.log_text())
    stub_node.signal(signal.SIGUSR1)
    wait_event(stub_node, "watchdog main .* ReopenLogsOrder")
    assert "log reopened" not in stub_node.log_text()[length:]


# --- systemd ----------------------------------------------------------------------------------------------


def test_words_to_systemd_come_in_order(stub_node: Node) -> None:
    address = f"\0pgvigil-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(10)
        stub_node.start_foreground({"NOTIFY_SOCKET": "@" + address[1:], "WATCHDOG_USEC": "400000"})
        stub_node.signal(signal.SIGHUP)
        stub_node.wait_log("configuration reloaded")
        stub_node.signal(signal.SIGTERM)
        assert stub_node.foreground_code() == exits.CLEAN
        systemd.setblocking(False)
        words = []
        while True:
            try:
                words.append(systemd.recv(4096).decode())
            except BlockingIOError:
                break
    states = [word.split("\n")[0].partition("=")[0] for word in words]
    order = [state for state in states if state not in ("WATCHDOG", "STATUS")]
    assert order == ["READY", "RELOADING", "READY", "STOPPING"], words
    assert "WATCHDOG" in states
    assert any(re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", word) for word in words)
