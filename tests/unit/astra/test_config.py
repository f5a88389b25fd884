"""Where a setting comes from, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from astra.config import SETTINGS, load, parse_listen, parse_peers
from astra.errors import ConfigError


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_load_without_anything_gives_every_default() -> None:
    config = load(environ={})
    assert {found.origin for _, found in config.items()} == {"default"}
    assert config.text("gateway.listen") == "127.0.0.1:9000"


def test_load_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", '[gateway]\nlisten = "f:1"\nworkers = 7\nregion = "r"\n')
    environ = {"ASTRA_GATEWAY_LISTEN": "e:2", "ASTRA_GATEWAY_WORKERS": "5"}
    config = load(flags={"gateway.listen": "g:3", "gateway.id": None}, environ=environ, file=file)
    origins = {setting.name: found.origin for setting, found in config.items()}
    assert (config.text("gateway.listen"), origins["gateway.listen"]) == ("g:3", "flag")
    assert config.number("gateway.workers") == 5
    assert origins["gateway.workers"] == "environment ASTRA_GATEWAY_WORKERS"
    assert config.text("gateway.region") == "r"
    assert origins["gateway.region"] == f"file {file}"
    assert origins["log.level"] == "default"


@pytest.mark.parametrize(
    ("environ", "nearest"),
    [
        ({"ASTRA_GATEWAY_LISTN": "x"}, "ASTRA_GATEWAY_LISTEN"),
        ({"ASTRA_ROOT_ACESS_KEY": "x"}, "ASTRA_ROOT_ACCESS_KEY"),
        ({"ASTRA_LOG_LEVEL_FILE": "x"}, "ASTRA_LOG_LEVEL"),
    ],
)
def test_load_unknown_variable_names_the_nearest(environ: dict[str, str], nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {nearest}"):
        load(environ=environ)


def test_load_unknown_name_in_file_names_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "[gateway]\nworker = 2\n")
    with pytest.raises(ConfigError, match=r"did you mean gateway\.workers"):
        load(environ={}, file=file)


@pytest.mark.parametrize("text", ["[gateway", "listen = 1\n", "[gateway]\nworkers = 'many'\n"])
def test_load_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load(environ={}, file=write(tmp_path / "a.toml", text))


def test_load_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load(environ={}, file=tmp_path / "none.toml")


def test_load_wrong_type_shows_no_secret() -> None:
    with pytest.raises(ConfigError, match=r"gateway\.workers .*'two'"):
        load(environ={"ASTRA_GATEWAY_WORKERS": "two"})


@pytest.mark.parametrize("from_file", [True, False])
def test_load_secret_from_file_reads_its_first_line(tmp_path: Path, from_file: bool) -> None:
    secret = write(tmp_path / "secret", "s" * 40 + "\n")
    if from_file:
        file = write(tmp_path / "a.toml", '[cluster]\nsecret_file = "secret"\n')
        config = load(environ={}, file=file)
    else:
        config = load(environ={"ASTRA_CLUSTER_SECRET_FILE": str(secret)})
    assert config.text("cluster.secret") == "s" * 40


def test_load_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", "x", mode=0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(environ={"ASTRA_CLUSTER_SECRET_FILE": str(secret)})


def test_load_file_with_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    text = '[redis]\nurl = "redis://:password@h:1"\n'
    file = write(tmp_path / "a.toml", text, mode=0o640)
    with pytest.raises(ConfigError, match=r"redis\.url .*chmod 600") as caught:
        load(environ={}, file=file)
    assert "password" not in str(caught.value)
    file.chmod(0o600)
    assert load(environ={}, file=file).text("redis.url")


def test_load_file_without_a_secret_may_be_read_by_all(tmp_path: Path) -> None:
    write(tmp_path / "secret", "s" * 40)
    text = '[cluster]\nsecret_file = "secret"\n[node]\nmetadata = "sqlite"\n'
    assert load(environ={}, file=write(tmp_path / "a.toml", text, mode=0o644))


@pytest.mark.parametrize("line", ['id = ["a"]', "id = {a = 1}", "id = 2020-01-01"])
def test_load_value_that_is_no_text_and_no_number_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.id"):
        load(environ={}, file=write(tmp_path / "a.toml", f"[cluster]\n{line}\n"))


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_load_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"node\.repair_grace_s"):
        load(environ={"ASTRA_NODE_REPAIR_GRACE_S": text})


def test_required_missing_says_how_to_give_it() -> None:
    with pytest.raises(ConfigError, match=r"ASTRA_CLUSTER_ID.*\[cluster\]"):
        load(environ={}).required("cluster.id")


def test_boolean_words_are_understood() -> None:
    assert load(environ={"ASTRA_GATEWAY_ACCESS_LOG": "yes"}).flag("gateway.access_log")
    assert not load(environ={"ASTRA_GATEWAY_ACCESS_LOG": "off"}).flag("gateway.access_log")


def test_settings_names_and_variables_are_unique_and_explained() -> None:
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    assert len({setting.env for setting in SETTINGS}) == len(SETTINGS)
    assert all(setting.help.endswith(".") for setting in SETTINGS)


def test_parse_peers_reads_ids_and_addresses() -> None:
    assert parse_peers("n1=h:1, n2=[::1]:2") == {"n1": "h:1", "n2": "[::1]:2"}


@pytest.mark.parametrize("text", ["n1", "n1=h", "n1=h:x", "=h:1", "n1=h:1,n1=h:2"])
def test_parse_peers_wrong_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_peers(text)


def test_parse_listen_reads_host_and_port() -> None:
    assert parse_listen("x", "127.0.0.1:9") == ("127.0.0.1", 9)
    assert parse_listen("x", "[::1]:9") == ("::1", 9)
    assert parse_listen("x", ":9") == ("0.0.0.0", 9)


@pytest.mark.parametrize("text", ["9000", "h:", "h:x", "h:70000"])
def test_parse_listen_wrong_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_listen("gateway.listen", text)
