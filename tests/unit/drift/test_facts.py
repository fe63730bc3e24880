"""Which settings are compared: all that the file has but what is local; never a password."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.config.helpers import CLUSTER, GOOD, NODES, outcome

from pgvigil.watchdog.config import schema
from pgvigil.watchdog.drift import facts
from pgvigil.watchdog.drift.configured import LOCAL
from pgvigil.watchdog.drift.facts import MAX_TEXT_BYTES, digest, fatal_digest, is_fatal, masked, shown

KEYS = st.text(string.ascii_lowercase + "._0123456789", min_size=1, max_size=20)


def of(text: str) -> dict[str, str]:
    made = outcome(text)
    assert made.settings is not None, made.mistakes
    return dict(made.settings.compared)


def test_a_file_says_these_facts_in_order() -> None:
    found = of(GOOD + '[vip]\naddresses = ["10.0.0.101/24", "10.0.0.100/24"]\n')
    assert list(found) == sorted(found)
    expected = {
        "cluster.name": "shop",
        "cluster.insecure": "true",
        "cluster.tie_breaker": "not set",
        "nodes": "1 2 3",
        "node.2.host": "10.0.0.2",
        "node.2.port": "9000",
        "node.2.paths": "10.0.0.2:9694",
        "node.2.pgpool_host": "10.0.0.2",
        "vip.addresses": "10.0.0.100/24 10.0.0.101/24",
        "commands.escalation.run": "not set",
        "lifecheck.methods": "heartbeat process",
    }
    assert {key: found[key] for key in expected} == expected


def test_every_setting_of_the_schema_is_compared_unless_it_is_local() -> None:
    found = of(GOOD + '[commands.escalation]\nrun = "/bin/true"\n')
    for table, keys in schema.TABLES.items():
        compared = {key.name for key in keys if not key.later} - LOCAL.get(table, frozenset())
        assert {f"{table}.{name}" for name in compared} <= found.keys()
    assert {f"node.1.{key.name}" for key in schema.NODE if key.name != "id"} <= found.keys()
    assert {f"commands.escalation.{key.name}" for key in schema.COMMAND_ENTRY} <= found.keys()


def test_local_names_exist_in_the_schema() -> None:
    for table, names in LOCAL.items():
        if table in schema.TABLES:
            assert names <= {key.name for key in schema.TABLES[table]}


def test_what_is_local_to_a_machine_is_not_compared() -> None:
    here = of(GOOD + '[process]\nrun_dir = "/run/here"\nlog_level = "debug"\n[vip]\ninterface = "eth0"\n')
    there = of(GOOD + '[process]\nrun_dir = "/run/there"\nlog = "syslog"\n[pgpool]\npid_file = "/run/pid"\n')
    assert here == there


def test_the_order_of_nodes_in_the_file_and_of_virtual_ips_does_not_count() -> None:
    turned = "".join(f'[[node]]\nid = {number}\nhost = "10.0.0.{number}"\n' for number in (3, 1, 2))
    vips = '[vip]\naddresses = ["10.0.0.100/24", "10.0.0.101/24"]\n'
    assert of(CLUSTER + turned + vips) == of(CLUSTER + NODES + vips.replace("0.100/24", "0.101/24", 1).replace(
        '24", "10.0.0.101', '24", "10.0.0.100'))  # fmt: skip


@pytest.mark.parametrize(
    ("key", "fatal"),
    [
        ("cluster.name", True), ("nodes", True), ("vip.addresses", True), ("node.12.host", True), ("node.1.port", True),
        ("node.1.role", True), ("node.1.paths", True), ("node.1.priority", False), ("node.1.pgpool_port", False),
        ("vip.driver", False), ("cluster.lease_ms", False), ("pgpool.conf.backend_port0", False), ("nodes2", False),
    ],
)  # fmt: skip
def test_what_keeps_a_node_out(key: str, fatal: bool) -> None:
    assert is_fatal(key) is fatal


def test_only_what_is_fatal_changes_the_fatal_digest() -> None:
    plain, other = of(GOOD), of(GOOD + "[heartbeat]\ninterval_ms = 100\n")
    assert digest(plain) != digest(other) and fatal_digest(plain) == fatal_digest(other)
    vip = of(GOOD + '[vip]\naddresses = ["10.0.0.100/24"]\n')
    assert fatal_digest(plain) != fatal_digest(vip)


@given(st.dictionaries(KEYS, st.text(max_size=30)), st.dictionaries(KEYS, st.text(max_size=30)))
def test_digests_are_equal_only_for_equal_facts(one: dict[str, str], other: dict[str, str]) -> None:
    assert (digest(one) == digest(other)) is (one == other)
    assert digest(dict(reversed(one.items()))) == digest(one)
    assert len(digest(one)) == facts.DIGEST_BYTES


@given(st.text(max_size=400), st.text(max_size=400))
def test_a_shown_value_is_one_short_line_and_differs_where_the_values_do(one: str, other: str) -> None:
    line = shown(one)
    assert line and line.isprintable()
    assert len(line.encode()) <= MAX_TEXT_BYTES
    if masked(one) != masked(other):
        assert line != shown(other)
    else:
        assert line == shown(other)


def test_what_looks_like_a_shortened_value_is_none() -> None:
    long = "x" * 400
    assert shown(long) == shown(long) and shown(long) != shown(long + "x")
    assert shown("a\nb") != shown("a\\nb")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PGPASSWORD=abc /bin/x %d", "PGPASSWORD=*** /bin/x %d"),
        ("PGPASSWORD='a b' /bin/x", "PGPASSWORD=*** /bin/x"),
        ('x --password "a b" y', "x --password *** y"),
        ("x --api-key=abc; y", "x --api-key=***; y"),
        ("psql postgres://ann:secret@db/x", "psql postgres://ann:***@db/x"),
        ("host=db password=abc user=ann", "host=db password=*** user=ann"),
        ("echo $PGVIGIL_TOKEN now", "echo $PGVIGIL_TOKEN now"),
        ("/usr/bin/sudo /sbin/ip addr add $_IP_$/24 dev eth0", "/usr/bin/sudo /sbin/ip addr add $_IP_$/24 dev eth0"),
    ],
)
def test_passwords_are_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_no_secret_is_a_fact(tmp_path: object) -> None:
    text = GOOD + '[commands.escalation]\nrun = "PGPASSWORD=sesame /bin/x"\n'
    found = of(text)
    assert "sesame" not in str(found)
    assert not any("authkey" in key or "password" in key for key in found)
