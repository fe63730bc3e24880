"""Reading whole files: what comes out, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.config.helpers import CLUSTER, GOOD, MACHINE, NODES, mistakes, outcome, warnings, write_key

from pgvigil.ipc.errors import ConfigError
from pgvigil.watchdog.config import schema
from pgvigil.watchdog.config.load import check, examine, load
from pgvigil.watchdog.settings import Fence, VipAddress

HERE = Path(__file__).parent
EVEN = GOOD + '[[node]]\nid = 4\nhost = "10.0.0.4"\n'
REPOSITORY = HERE.parents[2]
BESIDE = '[pgpool]\nwatchdog = "external"\nwatchdog_port = 9010\n'


def settings_of(text: str, node_id: int | None = 1):  # type: ignore[no-untyped-def]
    result = outcome(text, node_id)
    assert not result.mistakes
    assert result.settings is not None
    return result.settings


def test_a_small_file_gets_the_documented_defaults() -> None:
    settings = settings_of(GOOD)
    assert (settings.cluster.lease_ms, settings.cluster.renew_ms, settings.cluster.fence) == (1000, 200, Fence.REQUIRED)
    assert settings.lifecheck.methods == ("heartbeat", "process")
    assert settings.vip.addresses == ()
    assert [node.port for node in settings.nodes] == [9000] * 3
    assert settings.heartbeats[0].port == 9694
    assert settings.process.run_dir == "/run/pgvigil"


def test_an_address_as_host_is_the_only_path_on_the_interface_that_has_it() -> None:
    settings = settings_of(GOOD)
    assert [(path.interface, path.address) for node in settings.nodes for path in node.paths] == [
        ("eth0", "10.0.0.1"),
        ("auto", "10.0.0.2"),
        ("auto", "10.0.0.3"),
    ]


def test_each_path_has_its_own_heartbeat_settings_with_the_peers_of_its_position() -> None:
    text = CLUSTER + "".join(
        f'[[node]]\nid = {n}\nhost = "pg{n}"\n[[node.path]]\naddress = "10.0.0.{n}"\n'
        f'[[node.path]]\ninterface = "eth1"\naddress = "10.1.0.{n}"\nport = 9700\n'
        for n in (1, 2, 3)
    )
    first, second = settings_of(text).heartbeats
    assert (first.path, first.interface, first.address) == (0, "eth0", "10.0.0.1")
    assert (second.path, second.interface, second.port) == (1, "eth1", 9700)
    assert [(peer.node_id, peer.label, peer.address, peer.port) for peer in second.peers] == [
        (2, "pg2", "10.1.0.2", 9700),
        (3, "pg3", "10.1.0.3", 9700),
    ]


def test_half_proposes_its_tie_breaker_and_warns() -> None:
    text = half(EVEN, "[fd00:0::254]:443")
    cluster = settings_of(text).cluster
    assert (cluster.quorum, cluster.tie_breaker) == ("half", "[fd00::254]:443")
    assert (settings_of(EVEN).cluster.quorum, settings_of(EVEN).cluster.tie_breaker) == ("majority", "")
    (warned,) = (line for line in warnings(text) if "quorum" in line)
    assert (
        "do not hear each other and both reach [fd00::254]:443, both lead" in warned and "a witness is enough" in warned
    )
    odd = warnings(half(GOOD, "10.0.0.254"))
    assert any("3 nodes have no half, so a majority is needed as ever" in line for line in odd)


def test_the_vip_goes_to_the_interface_of_its_network() -> None:
    vip = settings_of(GOOD + '[vip]\naddresses = ["10.0.0.100/24", "FD00:0::100/64"]\n').vip
    assert vip.interface == "eth0"
    assert vip.addresses == (VipAddress("10.0.0.100", 24), VipAddress("fd00::100", 64))


def test_a_witness_has_no_pgpool_unless_the_file_names_one() -> None:
    text = GOOD + 'role = "witness"\n'
    witness = GOOD.replace("[[node]]\nid = 1\n", '[[node]]\nid = 1\nrole = "witness"\n')
    assert settings_of(text).lifecheck.pgpool_pid_file is not None
    assert settings_of(witness).lifecheck.pgpool_pid_file is None
    with_pgpool = witness.replace("id = 1\n", 'id = 1\npgpool_host = "10.0.0.1"\n')
    assert settings_of(with_pgpool).lifecheck.pgpool_pid_file is not None


def test_the_witness_needs_no_interface_for_the_vip() -> None:
    text = GOOD.replace("[[node]]\nid = 1\n", '[[node]]\nid = 1\nrole = "witness"\n')
    assert settings_of(text + '[vip]\naddresses = ["192.168.9.9/24"]\n').vip.interface == ""


def test_commands_carry_their_defaults() -> None:
    commands = settings_of(GOOD + '[commands]\nescalation = { run = "true" }\n').commands
    assert commands.escalation is not None
    assert (commands.escalation.timeout_s, commands.escalation.policy) == (30, "once")


def test_the_command_driver_fills_interface_and_prefix_into_the_defaults(tmp_path: Path) -> None:
    text = GOOD + (
        '[vip]\naddresses = ["10.0.0.100/28"]\ndriver = "command"\nif_up_cmd = "true $_IP_$"\n'
        'if_down_cmd = "true $_IP_$"\narping_cmd = "true"\n'
    )
    vip = settings_of(text).vip
    assert (vip.driver, vip.interface, vip.if_up_cmd) == ("command", "eth0", "true $_IP_$")


def test_the_secret_is_read_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    write_key(tmp_path)
    path = tmp_path / "pgvigil.toml"
    path.write_text('[cluster]\nname = "shop"\nauthkey_file = "authkey"\n' + NODES, encoding="utf-8")
    settings = load(str(path), 1, MACHINE)
    assert len(settings.cluster.key) == 32
    assert settings.cluster.key != settings.heartbeats[0].key
    assert repr(settings.cluster.key) not in repr(settings)


def test_pgpools_own_watchdog_is_found_by_what_pgpool_conf_calls_the_nodes(tmp_path: Path) -> None:
    key = tmp_path / "wd_authkey"
    key.write_text("a key\n")
    key.chmod(0o600)
    text = GOOD.replace('host = "10.0.0.2"', 'host = "10.0.0.2"\npgpool_host = "Pool-2"\npgpool_port = 5433')
    made = outcome(text + BESIDE + f'watchdog_authkey_file = "{key}"').settings
    assert made is not None and made.lifecheck.pgpool_watchdog is not None
    watchdog = made.lifecheck.pgpool_watchdog
    assert (watchdog.socket_path, watchdog.authkey) == ("/var/run/postgresql/.s.PGPOOLWD_CMD.9010", "a key")
    assert "a key" not in repr(made)
    assert [(node.node_id, node.hosts, node.port) for node in watchdog.nodes[:2]] == [
        (1, ("10.0.0.1",), 9999),
        (2, ("pool-2", "10.0.0.2"), 5433),
    ]
    key.write_text("\n")
    assert "is empty" in mistakes(text + BESIDE + f'watchdog_authkey_file = "{key}"')[0]


def test_a_witness_without_pgpool_has_no_watchdog_of_pgpool_beside_it() -> None:
    made = outcome(GOOD.replace('host = "10.0.0.1"', 'host = "10.0.0.1"\nrole = "witness"') + BESIDE).settings
    assert made is not None and made.lifecheck.pgpool_watchdog is None


def test_reports_from_outside_alone_are_a_method_of_their_own() -> None:
    made = outcome(GOOD + '[lifecheck]\nmethods = ["external", "upstream"]\nupstream_servers = ["10.0.0.9"]')
    assert made.settings is not None and made.settings.lifecheck.external_alone
    assert outcome(GOOD).settings is not None


def test_the_sample_loads(tmp_path: Path) -> None:
    text = (REPOSITORY / "conf" / "pgvigil.toml").read_text(encoding="utf-8")
    path = tmp_path / "pgvigil.toml"
    path.write_text(text.replace("/etc/pgvigil/authkey", str(write_key(tmp_path))), encoding="utf-8")
    settings = load(str(path), None, MACHINE)
    assert settings.node_id == 1
    assert settings.nodes[2].witness


def test_the_sample_shows_every_key_with_its_default() -> None:
    lines = (REPOSITORY / "conf" / "pgvigil.toml").read_text(encoding="utf-8").splitlines()
    shown = {line.lstrip("# ").partition(" = ")[0]: line.partition(" = ")[2] for line in lines if " = " in line}
    for keys in schema.ALL.values():
        for key in keys:
            if key.later or key.name in ("run", "timeout_s", "policy"):
                continue
            assert key.name in shown, key.name
    assert shown["lease_ms"] == "1000"
    assert "run = " in "\n".join(lines)


def test_ten_mistakes_give_a_report_of_ten() -> None:
    path = str(HERE / "ten_mistakes.toml")
    with pytest.raises(ConfigError) as caught:
        load(path)
    report = str(caught.value).splitlines()
    assert len(report) == 10
    marked = [number for number, line in enumerate(Path(path).read_text().splitlines(), 1) if "# " in line[1:]]
    assert [int(line.split(":")[1]) for line in report] == marked
    assert "did you mean 'fence'?" in report[2]
    assert [str(problem) for problem in check(path)] == report


def half(text: str, tie_breaker: str) -> str:
    """The same file with `quorum = "half"`."""
    return text.replace("insecure = true", f'insecure = true\nquorum = "half"\ntie_breaker = "{tie_breaker}"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("insecure = true", 'insecure = "yes"'), ["insecure", "is text", "expected true or false"]),
        (GOOD.replace('name = "shop"\n', ""), ["[cluster]", "name is missing"]),
        (GOOD.replace("insecure = true\n", ""), ["authkey_file is missing", "keygen", "insecure = true"]),
        (GOOD.replace("insecure = true", 'authkey_file = "/nonexistent"'), ["does not exist", "0600"]),
        (GOOD.replace("insecure = true", 'insecure = true\nauthkey_file = "x"'), ["contradicts insecure"]),
        (GOOD.replace("insecure = true", "insecure = true\nlease_ms = 200"), ["300 to 60000 ms", "below"]),
        (GOOD.replace("insecure = true", "insecure = true\nlease_ms = 1e3"), ["is a float"]),
        (GOOD.replace("insecure = true", "insecure = true\nlease_ms = true"), ["is a boolean"]),
        (GOOD.replace("insecure = true", "insecure = true\nrenew_ms = 400"), ["renew_ms = 400", "renew_ms <= 333"]),
        (GOOD.replace("insecure = true", 'insecure = true\nquorum = "hal"'), ["did you mean 'half'?"]),
        (EVEN.replace("insecure = true", 'insecure = true\nquorum = "half"'), ["has no tie_breaker", "majority"]),
        (half(EVEN, "10.0.0.1"), ["tie_breaker", "is a node's own address"]),
        (half(EVEN, "fd00::1"), ["tie_breaker", "is on eth0 of this machine"]),
        (half(EVEN, "10.0.0.9") + '[vip]\naddresses = ["10.0.0.9/24"]', ["is a virtual address"]),
        (half(EVEN, "10.0.0.254") + "[heartbeat]\ninterval_ms = 1001\ndeadtime_ms = 9000\n", ["too rare for a lease"]),
        (half(EVEN, "10.0.0.254:0"), ["not a port of 1 to 65535"]),
        (half(EVEN, "gateway"), ["neither an IP address nor one with a port"]),
        (half(EVEN, "fd00::1:443x"), ["neither an IP address nor one with a port"]),
        (half(EVEN, "10.0.0.254").replace('"half"', '"majority"'), ['is used by quorum = "half" only']),
        (GOOD.replace("insecure = true", "insecure = true\nlost_node_removal_timeout_s = 2"), ["at least 3"]),
        (GOOD + "[heartbeat]\ndeadtime_ms = 500\n", ["less than three heartbeats"]),
        (GOOD.replace("id = 2", "id = 200"), ["id = 200", "1 to 127"]),
        (GOOD.replace("10.0.0.2", "10.0.0.1"), ["this host is given twice, first in line 6"]),
        (GOOD.replace("10.0.0.2", "pg02"), ["names are not resolved", "[[node.path]]"]),
        (GOOD.replace("10.0.0.2", "10.0.0"), ["looks like an IPv4 address"]),
        (GOOD.replace("10.0.0.2", "fd00::2"), ["IPv6 here and IPv4 on node 1"]),
        (CLUSTER, ["[[node]] is missing"]),
        ("node = []\n" + CLUSTER, ["list of nodes is empty"]),
        (CLUSTER + "[node]\nid = 1", ["expected [[node]], with double brackets"]),
        (GOOD.replace("id = ", 'role = "witness"\nid = '), ["every node is a witness"]),
        (GOOD + '[[node.path]]\naddress = "10.0.0.3"\n[[node.path]]\naddress = "10.1.0.3"\n', ["has 2 paths"]),
        (GOOD + '[vip]\naddresses = ["10.0.0.2/24"]', ["own address of node 2"]),
        (GOOD + '[vip]\naddresses = ["10.0.0.0/24"]', ["network or broadcast"]),
        (GOOD + '[vip]\naddresses = "10.0.0.9/24"', ["is text", "expected a list"]),
        (GOOD + '[vip]\naddresses = ["10.9.0.9/24"]', ["in no network of this machine"]),
        (GOOD + '[vip]\naddresses = ["10.0.0.9/24"]\ninterface = "eth7"', ["no such interface", "lo, eth0, eth1"]),
        (GOOD + '[vip]\naddresses = ["10.0.0.9/24"]\ninterface = "eth1"', ["not in a network of eth1, but of eth0"]),
        (GOOD + '[vip]\naddresses = ["10.0.0.9/24", "10.1.0.9/24"]', ["all virtual addresses on one interface"]),
        (GOOD + '[vip]\naddresses = ["10.0.0.9/24", "10.0.0.9/32"]', ["given twice"]),
        (GOOD + '[vip]\nif_up_cmd = "x"', ['not used by driver "netlink"']),
        (
            GOOD + '[vip]\naddresses = ["10.0.0.9/24"]\ndriver = "command"\nif_up_cmd = "true"\n'
            'if_down_cmd = "true $_IP_$"\narping_cmd = "true"',
            ["if_up_cmd", "does not name the address"],
        ),
        (
            GOOD + '[vip]\naddresses = ["10.0.0.9/24"]\ndriver = "command"\nif_up_cmd = "/nonexistent $_IP_$"\n'
            'if_down_cmd = "true $_IP_$"\narping_cmd = "true"',
            ["/nonexistent is not here or not executable"],
        ),
        (GOOD + '[lifecheck]\nmethods = ["heartbeat", "query"]', ["query_user is not set", "PostgreSQL user"]),
        (GOOD + '[lifecheck]\nmethods = ["external", "process"]', ['"external" judges alone', '"process" would judge']),
        (GOOD + '[lifecheck]\nmethods = ["process"]', ['"heartbeat" is missing']),
        (
            GOOD + BESIDE + '[vip]\naddresses = ["10.0.0.100/24"]',
            ["[vip] addresses", "pgpool-II's own watchdog carries the virtual IP", "delegate_ip in pgpool.conf"],
        ),
        (
            GOOD + BESIDE + '[commands]\nescalation = { run = "x" }',
            ["[commands.escalation]", "pgpool-II's own watchdog decides who leads", "wd_escalation_command"],
        ),
        (GOOD + BESIDE.replace("9010", "9000"), ["port of pgvigil on node 1, 2, 3", "another port in"]),
        (GOOD + BESIDE + 'watchdog_authkey_file = "/nonexistent"', ["watchdog_authkey_file", "does not exist"]),
        (GOOD + BESIDE + f'watchdog_socket_dir = "/{"x" * 100}"', ["watchdog_socket_dir", "too long for the socket"]),
        (GOOD + '[lifecheck]\nmethods = ["heartbeat", "upstream", "process"]', ["upstream_servers is empty"]),
        (GOOD + "[heartbeat]\ndeadtime_min_ms = 2000", ["deadtime_min_ms", "expected 600 to 1000"]),
        (GOOD + '[commands]\nfailover = { run = "x" }', ["[commands.failover]", "nobody watches the backends"]),
        (GOOD + "[commands]\nescalation = { timeout_s = 3 }", ["run is missing"]),
        (GOOD + '[commands]\nescalation = "x"', ["is text", "expected a table"]),
        (GOOD + "[status]\nlisten = 1", ["listen", "not in this version"]),
        (GOOD + f'[process]\nrun_dir = "/{"x" * 120}"', ["too long for the sockets", "expected at most 93 bytes"]),
        (GOOD + '[process]\nrun_dir = "run"', ["not an absolute path"]),
        (GOOD + '[process]\nlog = "/var/log/x"', ['"file:/absolute/path"']),
        (GOOD + '[process]\nstate_dir = "/run/pgvigil"', ["may be emptied"]),
        (GOOD + '[pgpool]\npcp_password_file = "/nonexistent"', ["pcp_password_file", "0600"]),
        (
            GOOD + '[lifecheck]\nmethods = ["heartbeat", "query"]\nquery_user = "x"\n'
            'query_password_file = "/nonexistent"',
            ["query_password_file", "0600"],
        ),
        (GOOD.replace("10.0.0.1", "10.0.0.7"), ["does not have this address", "--node-id"]),
    ],
)
def test_each_mistake_has_its_sentence(text: str, said: list[str]) -> None:
    found = mistakes(text)
    assert len(found) == 1, found
    for words in said:
        assert words in found[0]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a = ", "pgvigil.toml:1: not valid TOML"),
        (b"\n\n[a", "pgvigil.toml:3: not valid TOML"),
        (b"a = 1\na = 2", "pgvigil.toml:2: not valid TOML"),
        (b"a = 1\n\xff", "pgvigil.toml:2: byte 0xff is not UTF-8"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"a = " + b"9" * 5000, "not valid TOML"),
        (b"b = 1\n" + b"a." * 400_000 + b"a = 1", "pgvigil.toml:2: a name of more than 16 parts"),
        (b"[" + b"a . " * 200_000 + b"a]", "pgvigil.toml:1: a name of more than 16 parts"),
        (b"a = [{" + rb'"\"".' * 150_000 + b"a = 1}]", "pgvigil.toml:1: a name of more than 16 parts"),
        (b"'a b'." * 150_000 + b"a = 1", "pgvigil.toml:1: a name of more than 16 parts"),
    ],
)
def test_what_is_no_toml_is_one_mistake_with_its_line(data: bytes, said: str) -> None:
    result = examine("pgvigil.toml", 1, MACHINE, environment={}, data=data)
    assert len(result.mistakes) == 1
    assert said in str(result.mistakes[0])


def test_names_that_are_long_or_quoted_are_no_deep_ones() -> None:
    for text in (b'"' + b'\\"' * 500_000, b"a" * 1_000_000, b"a " * 500_000, b"'" * 999_999, b". " * 500_000):
        assert "parts" not in str(examine("pgvigil.toml", 1, MACHINE, environment={}, data=text).mistakes[0])
    vips = ", ".join(f'"10.0.0.{number}/24"' for number in range(100, 108))
    assert mistakes(GOOD + f"[vip]\naddresses = [{vips}]\n") == []


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"#" * (1024 * 1024 + 1))
    for path, said in ((tmp_path / "no", "cannot read"), (tmp_path, "regular file"), (large, "larger than 1048576")):
        with pytest.raises(ConfigError, match=said):
            load(str(path), 1, MACHINE)
    with pytest.raises(ConfigError, match="regular file"):
        load("/dev/zero", 1, MACHINE)
    with pytest.raises(ConfigError, match="cannot read"):
        load("a\0b", 1, MACHINE)


def test_warnings_do_not_refuse() -> None:
    assert any("nothing is authenticated" in line for line in warnings(GOOD))
    two = GOOD.replace('[[node]]\nid = 3\nhost = "10.0.0.3"\n', "")
    assert any("two nodes are no majority" in line and "witness" in line for line in warnings(two))
    four = GOOD + '[[node]]\nid = 4\nhost = "10.0.0.4"\n'
    assert any("4 voters survive the loss of 1, as 3 would" in line for line in warnings(four))
    one = CLUSTER + '[[node]]\nid = 1\nhost = "10.0.0.1"\n'
    assert any("no peer to take over" in line for line in warnings(one))
    assert not [line for line in warnings(GOOD) if "voters" in line]
    query = GOOD + '[lifecheck]\nmethods = ["heartbeat", "query"]\nquery_user = "x"'
    assert any("with a wrong password" in line for line in warnings(query))
    assert not any("with a wrong password" in line for line in warnings(query.replace('"query"', '"query", "process"')))


def test_lines_are_right_after_comments_strings_and_lists() -> None:
    text = (
        '# "quote\n[cluster] # [x]\nname = "a]b#"\n\'insecure\' = true\nlease_ms = "x"\n'
        '[vip]\naddresses = [ # "\n  "10.0.0.9/24",\n  """10.0.0.8/24""",\n]\n'
        'interface = """\neth0"""\nannounce_interval_s = 0\n'
    )
    lines = [line.split(":")[1] for line in mistakes(text + NODES)]
    assert lines == ["3", "5", "13"]
