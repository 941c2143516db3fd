"""Settings from file and environment: which wins, what is refused and how it is said, and that secrets stay unseen."""

from pathlib import Path

import pytest

from connect.config import load_settings
from connect.errors import SettingsError

POINTS = {"CONNECT_TARGETS__POINTS__URL": "https://points.test/commands"}


def test_without_any_setting_the_defaults_of_the_contract_hold():
    settings = load_settings(environ={})
    assert (settings.host, settings.port, settings.processing, str(settings.home)) == (
        "127.0.0.1",
        8080,
        "inline",
        ".connect",
    )
    assert (settings.event_age_max_days, settings.event_ahead_max_s, settings.targets) == (90, 600, {})


def test_a_variable_overrides_the_file_and_nests_by_two_underscores(tmp_path: Path):
    file = tmp_path / "connect.toml"
    file.write_text('port = 1\nprocessing = "queued"\n[targets.points]\nurl = "http://one.test"\nmax_inflight = 3\n')
    settings = load_settings(file, {"CONNECT_PORT": "2", "CONNECT_TARGETS__POINTS__URL": "http://two.test"})
    points = settings.targets["points"]
    assert (settings.port, settings.processing, points.url, points.max_inflight) == (2, "queued", "http://two.test", 3)


def test_a_targets_defaults_are_the_contracts():
    target = load_settings(environ=POINTS).targets["points"]
    assert (target.max_inflight, target.connect_timeout_s, target.timeout_s, target.lease_s) == (20, 2, 10, 30)
    assert (target.backoff_base_s, target.backoff_cap_s, target.give_up_after_s) == (5, 3600, 259_200)
    assert (target.result_deadline_s, target.attempts_max, target.rate, target.internal) == (86_400, None, None, False)


def test_secrets_come_from_variables_and_files_and_may_be_several(tmp_path: Path):
    (tmp_path / "secrets").write_text("whsec_b25l\nwhsec_dHdv\n")
    variables = {"SECRET": "whsec_emVybw==", "SECRET_FILE": str(tmp_path / "secrets")}
    nested = {f"CONNECT_TARGETS__POINTS__{name}": value for name, value in variables.items()}
    assert load_settings(environ={**POINTS, **nested}).targets["points"].secret == (
        "whsec_emVybw==", "whsec_b25l", "whsec_dHdv")  # fmt: skip


def test_no_secret_shows_in_a_repr():
    secret, key = "whsec_c2VjcmV0", "k" * 40
    environ = {
        **POINTS,
        "CONNECT_TARGETS__POINTS__SECRET": secret,
        "CONNECT_BOOTSTRAP_KEY": key,
        "CONNECT_DATABASE_URL": "postgresql://user:password@db/connect",
    }
    settings = load_settings(environ=environ)
    shown = f"{settings!r} {settings.targets!r}"
    assert not [hidden for hidden in (secret, key, "password") if hidden in shown]


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"CONNECT_PORT": "many"}, "port"),
        ({"CONNECT_PORT": "70000"}, "port"),
        ({"CONNECT_PROCESSING": "later"}, "processing"),
        ({"CONNECT_BOOTSTRAP_KEY": "short"}, "32"),
        ({"CONNECT_DATABASE_URL": "mysql://db"}, "postgresql://"),
        ({"CONNECT_TARGETS__POINTS__URL": "ftp://points"}, "http"),
        ({**POINTS, "CONNECT_TARGETS__POINTS__COLOUR": "red"}, "colour"),
        ({**POINTS, "CONNECT_TARGETS__POINTS__SECRET": "plain"}, "whsec_"),
        ({**POINTS, "CONNECT_TARGETS__POINTS__SECRET_FILE": "/nowhere"}, "secret_file"),
        ({**POINTS, "CONNECT_TARGETS__POINTS__TIMEOUT_S": "0"}, "timeout_s"),
        ({**POINTS, "CONNECT_TARGETS__POINTS__LEASE_MARGIN_S": "1"}, "is for tests"),
        ({"CONNECT_TARGETS__POINTS": "x"}, "points"),
        ({"CONNECT_JWT__ISSUER": "a", "CONNECT_JWT__AUDIENCE": "b"}, "jwks"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(environ: dict[str, str], word: str):
    with pytest.raises(SettingsError, match=word):
        load_settings(environ=environ)


def test_a_missing_or_broken_file_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match="no file"):
        load_settings(tmp_path / "none.toml", {})
    (tmp_path / "bad.toml").write_text("port = \n")
    with pytest.raises(SettingsError, match="not TOML"):
        load_settings(tmp_path / "bad.toml", {})


def test_variables_that_others_set_are_passed_by_with_a_word(capsys: pytest.CaptureFixture[str]):
    settings = load_settings(environ={"CONNECT_SERVICE_HOST": "10.0.0.1", "CONNECT_DATABASE_URL": "", "OTHER": "x"})
    assert settings.database_url is None
    assert "CONNECT_SERVICE_HOST is no setting" in capsys.readouterr().err
