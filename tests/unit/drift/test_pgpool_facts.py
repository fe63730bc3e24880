"""What of a pgpool-II's settings is compared: what must agree, and nothing that is local or secret."""

from __future__ import annotations

import pytest

from pgvigil.watchdog.drift.compare import Difference, differences
from pgvigil.watchdog.drift.facts import is_fatal
from pgvigil.watchdog.drift.pgpool import of_pgpool
from pgvigil.watchdog.pcp.records import Parameter

# As pgpool-II 4.3.5 answers.
SAID = {
    "backend_clustering_mode": "1", "listen_addresses": "10.0.0.1", "port": "9999", "pcp_port": "9898",
    "num_init_children": "32", "failover_command": "pgvigil failover %d PGPASSWORD=sesame", "delegate_IP": "",
    "log_line_prefix": "%m: ", "pid_file_name": "/run/pgpool.pid", "logdir": "/tmp", "health_check_period": "0",
    "memqcache_cache_hits": "17", "memqcache_stats_start_time": "Sat Nov 21 13:56:37 2026\n", "wd_priority": "1",
    "backend_hostname0": "10.0.0.11", "backend_port0": "5432", "backend_weight0": "1.000000", "backend_status0": "up",
    "standby_delay0": "0", "backend_flag0": "ALLOW_TO_FAILOVER", "backend_hostname1": "10.0.0.12",
    "backend_port1": "5432", "backend_status1": "down", "health_check_period1": "5", "pool_passwd": "pool_passwd",
    "wd_lifecheck_password": "sesame", "recovery_password": "sesame", "wd_authkey": "sesame",
}  # fmt: skip


def parameters(**changes: str) -> list[Parameter]:
    return [Parameter(name, value, "") for name, value in (SAID | changes).items()]


def test_what_must_agree_is_compared() -> None:
    found = of_pgpool(parameters())
    assert list(found) == sorted(found)
    expected = {
        "pgpool.conf.backends": "0 1",
        "pgpool.conf.backend_hostname1": "10.0.0.12",
        "pgpool.conf.backend_weight0": "1.000000",
        "pgpool.conf.failover_command": "pgvigil failover %d PGPASSWORD=***",
        "pgpool.conf.health_check_period1": "5",
        "pgpool.conf.delegate_ip": '""',
        "pgpool.conf.backend_clustering_mode": "1",
    }
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    "name",
    ["port", "listen_addresses", "pcp_port", "log_line_prefix", "logdir", "memqcache_cache_hits", "wd_priority",
     "memqcache_stats_start_time", "backend_status0", "standby_delay0", "pid_file_name", "pool_passwd"],
)  # fmt: skip
def test_what_is_local_or_of_the_moment_is_not(name: str) -> None:
    assert of_pgpool(parameters(**{name: "another"})) == of_pgpool(parameters())


def test_no_password_of_any_version_is_a_fact() -> None:
    found = of_pgpool([*parameters(), Parameter("health_check_password0", "sesame", "")])
    assert "sesame" not in str(found)


def test_a_backend_that_one_pgpool_lacks_is_a_difference() -> None:
    less = [one for one in parameters() if not one.name.endswith("1")]
    (found,) = differences(of_pgpool(less), of_pgpool(parameters()))
    assert found == Difference("pgpool.conf.backends", "0", "0 1")


def test_settings_that_one_version_does_not_know_are_none() -> None:
    newer = [*parameters(), Parameter("process_management_mode", "static", "")]
    assert differences(of_pgpool(parameters()), of_pgpool(newer)) == ()


def test_no_setting_of_pgpool_keeps_a_node_out() -> None:
    assert not any(is_fatal(key) for key in of_pgpool(parameters()))


def test_without_backends_it_says_none() -> None:
    assert of_pgpool([]) == {"pgpool.conf.backends": "none"}
