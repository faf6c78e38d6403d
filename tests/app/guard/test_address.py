"""A visitor is known by an address that the visitor cannot choose."""

from dataclasses import fields
from pathlib import Path

import pytest

from app.guard.address import address_of, by_name, networks
from app.limits import Limits, flag, variable
from app.settings import Settings
from bitune.errors import ConfigError

SPACE = networks(["private"])


@pytest.mark.parametrize(
    ("forwarded", "client", "visitor"),
    [
        (None, "203.0.113.9", "203.0.113.9"),
        ("198.51.100.1", "203.0.113.9", "203.0.113.9"),  # written by a visitor who came without our proxy
        ("198.51.100.1", "10.1.2.3", "198.51.100.1"),
        ("1.2.3.4, 198.51.100.1", "10.1.2.3", "198.51.100.1"),  # the first is what a visitor wrote, the proxy appended the second
        ("1.2.3.4, 198.51.100.1, 10.9.9.9", "10.1.2.3", "198.51.100.1"),  # two proxies
        ("198.51.100.1:5123", "10.1.2.3", "198.51.100.1"),
        ("nonsense", "10.1.2.3", "10.1.2.3"),
        ("1.2.3.4, <script>", "10.1.2.3", "10.1.2.3"),
        ("", "10.1.2.3", "10.1.2.3"),
        ("192.168.1.7", "10.1.2.3", "192.168.1.7"),  # a visitor in the same house
        (None, "", ""),
        ("2001:db8:1:2:3:4:5:6", "::1", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:443", "10.1.2.3", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.1", "::ffff:10.1.2.3", "198.51.100.1"),
    ],
)
def test_the_last_address_that_no_proxy_of_ours_has(forwarded, client, visitor):
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    assert address_of(headers, client, SPACE) == visitor


def test_a_line_that_a_proxy_adds_stands_behind_the_one_that_a_visitor_wrote():
    headers = by_name([(b"X-Forwarded-For", b"6.6.6.6"), (b"host", b"a"), (b"x-forwarded-for", b"198.51.100.1")])
    assert headers == {"x-forwarded-for": "6.6.6.6, 198.51.100.1", "host": "a"}
    assert address_of(headers, "10.1.2.3", SPACE) == "198.51.100.1"


def test_no_proxy_is_believed_unless_it_is_named():
    assert address_of({"x-forwarded-for": "1.2.3.4"}, "10.1.2.3", ()) == "10.1.2.3"
    assert Settings.from_command_line([], {}).proxies == ()
    assert Settings.from_command_line([], {"SPACE_ID": "a/b"}).proxies == ("private",)
    chosen = Settings.from_command_line(["--proxies", "10.0.0.1, 192.168.0.0/24"], {"SPACE_ID": "a/b"}).proxies
    assert address_of({"x-forwarded-for": "1.2.3.4"}, "192.168.0.7", networks(chosen)) == "1.2.3.4"


@pytest.mark.parametrize("wrong", ["nginx", "10.0.0.1/8", "300.1.1.1"])
def test_a_proxy_that_is_no_address_is_a_sentence(wrong):
    with pytest.raises(ConfigError, match=rf"--proxies says '{wrong}', which is no address"):
        Settings(proxies=(wrong,))


def test_limits_come_from_flags_then_the_environment_then_their_defaults():
    environment = {"BITUNE_WAITING": "7", "BITUNE_PER_ADDRESS": "3"}
    limits = Settings.from_command_line(["--waiting", "9"], environment).limits
    assert (limits.waiting, limits.per_address, limits.running) == (9, 3, Limits().running)
    with pytest.raises(ConfigError, match=r"--seconds-waiting is 0; it must be 1 or more: seconds that a request may wait\."):
        Limits(seconds_waiting=0)


@pytest.mark.parametrize("limit", fields(Limits), ids=lambda limit: limit.name)
def test_docs_name_every_limit_with_its_default(limit):
    table = (Path(__file__).parents[3] / "docs" / "hosting.md").read_text("utf-8")
    assert f"| `{flag(limit.name)}` | `{variable(limit.name)}` | {limit.default:,} |" in table
