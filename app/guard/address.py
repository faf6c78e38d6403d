"""Whose request this is: the address of the connection or, where that is a proxy of ours, the one that the proxy wrote."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from bitune.errors import ConfigError

Network = IPv4Network | IPv6Network

FORWARDED = "x-forwarded-for"
# What `private` stands for: addresses that no visitor comes from over the internet (RFC 1918, 4193, 6598, loopback).
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "::1/128", "fc00::/7")
ONE_HOME = 64  # a provider gives a home a whole network of this many bits in IPv6, so that is one visitor


def networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Networks that are proxies of ours.

    Args:
        names: Addresses (10.0.0.1), networks (10.0.0.0/8) or the word `private`.

    Raises:
        ConfigError: One is none of these.
    """
    found: list[Network] = []
    for name in names:
        try:
            found += [ip_network(each) for each in (PRIVATE if name == "private" else (name,))]
        except ValueError as error:
            raise ConfigError(
                f"--proxies says {name!r}, which is no address and no network ({error}); write 10.0.0.1, 10.0.0.0/8 or private."
            ) from error
    return tuple(found)


def by_name(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers of a request by lower-case name. What stands in several lines is one list (RFC 9110, section 5.3): a proxy may add a
    line of its own behind one that a visitor wrote."""
    found: dict[str, list[str]] = {}
    for name, value in raw:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return {name: ", ".join(values) for name, values in found.items()}


def address_of(headers: Mapping[str, str], client_host: str, trusted: Sequence[Network]) -> str:
    """Who asks, as a text that is the same for all requests of a visitor and that a visitor cannot choose.

    A proxy appends the address of its caller to X-Forwarded-For; what stands before that anyone can have written. So the header is
    read from its end, as long as proxies of ours wrote it.

    Args:
        headers: Of the request, from `by_name`.
        client_host: The other end of the connection; "" where there is none, as on a Unix socket.
        trusted: Networks of proxies, from `networks`.

    Returns:
        That of `sender_of`, in IPv6 its network of 64 bits.
    """
    return home_of(sender_of(headers, client_host, trusted))


def sender_of(headers: Mapping[str, str], client_host: str, trusted: Sequence[Network]) -> str:
    """The last address that is no trusted proxy; `client_host` where none is forwarded. Arguments as of `address_of`."""
    hops = [hop.strip() for hop in headers.get(FORWARDED, "").split(",") if hop.strip()]
    address = client_host
    while hops and is_proxy(address, trusted):
        if (before := plain(hops.pop())) is None:
            break
        address = before
    return address


def is_proxy(address: str, trusted: Sequence[Network]) -> bool:
    """Whether the address is that of a proxy of ours."""
    known = plain(address)
    return known is not None and any(ip_address(known) in network for network in trusted)


def is_loopback(host: str) -> bool:
    """Whether a server that listens on this host is reached from its own computer alone."""
    known = plain(host)
    return host == "localhost" if known is None else ip_address(known).is_loopback


def plain(address: str) -> str | None:
    """An address without its port and brackets, IPv4 in IPv6 as IPv4; None where it is none."""
    bare = address.removeprefix("[").partition("]")[0] if address.startswith("[") else address
    bare = bare.partition(":")[0] if bare.count(":") == 1 else bare
    try:
        known = ip_address(bare)
    except ValueError:
        return None
    mapped = known.ipv4_mapped if isinstance(known, IPv6Address) else None
    return str(mapped or known)


def home_of(address: str) -> str:
    """The visitor behind an address: itself, in IPv6 the network that a home has; what is no address stays as it is."""
    known = plain(address)
    if known is None:
        return address
    return str(ip_network(f"{known}/{ONE_HOME}", strict=False)) if ":" in known else known
