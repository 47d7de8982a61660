"""A key file tells nobody but its owner anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from broker.errors import ConfigurationError
from broker.signing import PASSPHRASE_LEAST, PASSPHRASE_MOST, SigningKey, is_encrypted
from cli import passphrases
from tests.making import key_of

KEY = key_of("AT/ncb")
SECRET = b"correct horse battery staple"


def asked(_: Path) -> bytes:
    return SECRET


def test_an_encrypted_file_opens_with_its_passphrase_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ncb.pem"
    KEY.save(path, SECRET)
    assert SigningKey.load(path, asked).public.id == KEY.public.id
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    with pytest.raises(ConfigurationError, match="passphrase does not open"):
        SigningKey.load(path, lambda _: b"correct horse battery stable")
    with pytest.raises(ConfigurationError, match="VALISE_PASSPHRASE_FILE"):
        SigningKey.load(path)


def test_an_open_file_asks_for_no_passphrase(tmp_path: Path) -> None:
    KEY.save(tmp_path / "ncb.pem")
    assert SigningKey.load(tmp_path / "ncb.pem").public.id == KEY.public.id


def test_a_passphrase_that_can_be_guessed_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="16 to 1,023 bytes"):
        KEY.save(tmp_path / "ncb.pem", b"hunter2")
    assert not (tmp_path / "ncb.pem").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o777])
def test_a_key_file_that_group_or_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "ncb.pem"
    KEY.save(path, SECRET)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        SigningKey.load(path, asked)


def test_a_damaged_file_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "ncb.pem"
    KEY.save(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ConfigurationError, match="no key in PEM form"):
        SigningKey.load(path)


def secret(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.touch(mode=mode)
    path.write_bytes(content)
    return path


def test_a_passphrase_file_may_end_in_a_line_break_and_hold_any_bytes(tmp_path: Path) -> None:
    assert passphrases.from_file(secret(tmp_path / "a", SECRET + b"\n")) == SECRET
    assert passphrases.from_file(secret(tmp_path / "b", bytes(range(32, 80)))) == bytes(range(32, 80))


def test_a_passphrase_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="chmod 600"):
        passphrases.from_file(secret(tmp_path / "a", SECRET, 0o644))


def test_who_asks_for_a_passphrase_is_asked_whatever_file_the_environment_names(tmp_path: Path) -> None:
    file = secret(tmp_path / "a", SECRET)

    @click.command()
    @passphrases.prompted
    @passphrases.passphrase_file
    def new(ask: bool, passphrase_file: Path | None) -> None:
        click.echo(passphrases.for_new(passphrase_file, ask=ask))

    def said(*words: str) -> Result:
        return CliRunner().invoke(new, words, "typed\ntyped\n", env={passphrases.VARIABLE: str(file)})

    assert said().output == SECRET.decode() + "\n"
    assert said("--passphrase").stdout == "typed\n"
    both = said("--passphrase", "--passphrase-file", str(file))
    assert (both.exit_code, "give one of them" in both.output) == (2, True)


def test_who_is_asked_for_the_passphrase_of_a_key_answers_whatever_file_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(passphrases.VARIABLE, str(secret(tmp_path / "a", SECRET)))
    assert passphrases.for_old()(tmp_path) == SECRET
    with pytest.raises(ConfigurationError, match="is needed"):  # nobody sits here
        passphrases.for_old(ask=True)(tmp_path)
    with pytest.raises(click.UsageError, match="give one of them"):
        passphrases.for_old(tmp_path / "a", ask=True)


@pytest.mark.parametrize("size", [PASSPHRASE_LEAST - 1, PASSPHRASE_MOST + 1])
def test_a_passphrase_that_is_too_short_or_longer_than_openssl_takes_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ConfigurationError, match="16 to 1,023 bytes"):
        KEY.save(tmp_path / "ncb.pem", b"x" * size)
    KEY.save(tmp_path / "most.pem", b"x" * PASSPHRASE_MOST)
    assert list(tmp_path.iterdir()) == [tmp_path / "most.pem"]


def test_an_empty_or_missing_passphrase_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        passphrases.from_file(secret(tmp_path / "a", b"\n"))
    with pytest.raises(ConfigurationError, match="cannot read"):
        passphrases.from_file(tmp_path / "none")


def test_the_log_key_is_encrypted_where_a_passphrase_is_given(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a long passphrase of the operator\n", encoding="utf-8")
    secret.chmod(0o600)

    def init(**more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", "broker", "init", "--home", str(tmp_path / "home")]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **more})

    assert init(VALISE_PASSPHRASE_FILE=str(secret)).returncode == 0
    assert is_encrypted((tmp_path / "home" / "operator" / "log.key").read_bytes())
    assert init(VALISE_PASSPHRASE_FILE=str(secret)).returncode == 0
    assert "VALISE_PASSPHRASE_FILE" in init(VALISE_PASSPHRASE_FILE="").stderr
