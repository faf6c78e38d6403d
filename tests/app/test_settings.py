"""Who may load checkpoints from the page: decided by where it can be opened from."""

import pytest

from app import server
from app.settings import Settings
from bitune.errors import ConfigError

LOCAL = ([], {})
PUBLIC = [
    (["--host", "0.0.0.0"], {}),
    (["--host", "box.example.org"], {}),
    (["--host", "::"], {}),
    (["--proxies", "127.0.0.1"], {}),
    ([], {"SPACE_ID": "user/bitune"}),
    ([], {"GRADIO_SHARE": "True"}),
    ([], {"GRADIO_SERVER_NAME": "0.0.0.0"}),
]


@pytest.mark.parametrize(
    ("flags", "environment"), [LOCAL, *((["--host", host], {}) for host in ("localhost", "::1", "[::1]", "127.0.0.2"))]
)
def test_a_page_for_this_computer_loads(flags, environment):
    settings = Settings.from_command_line(flags, environment)
    assert settings.loads and not settings.public
    assert not Settings.from_command_line([*flags, "--loading", "off"], environment).loads
    assert not Settings.from_command_line(flags, {**environment, "BITUNE_LOADING": "off"}).loads


@pytest.mark.parametrize(("flags", "environment"), PUBLIC)
def test_a_public_one_only_where_somebody_says_so(flags, environment):
    settings = Settings.from_command_line(flags, environment)
    assert settings.public and not settings.loads
    assert Settings.from_command_line([*flags, "--loading", "on"], environment).loads
    assert Settings.from_command_line(flags, {**environment, "BITUNE_LOADING": "on"}).loads


def test_a_word_that_is_none_is_a_sentence():
    with pytest.raises(ConfigError, match="--loading is 'yes'; it is one of auto, on, off"):
        Settings.from_command_line(["--loading", "yes"], {})


def test_under_zero_gpu_it_cannot_be_turned_on():
    server.check_zero(Settings())
    with pytest.raises(ConfigError, match="under ZeroGPU"):
        server.check_zero(Settings(loading="on"))
