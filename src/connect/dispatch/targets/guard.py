"""Which addresses a command may be sent to: the guard against being lured to a neighbour (SSRF).

It judges the address of a socket about to connect, so that names, redirects of DNS, spellings (`0x7f.1`, `2130706433`)
and addresses inside addresses all come down to the same question. The ranges are those of the IANA special-purpose
registries, written out because `ipaddress.is_global` changes between Python releases.
"""

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Network = IPv4Network | IPv6Network


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part) for part in text.split())


METADATA = _networks(
    "169.254.0.0/16 fd00:ec2::254/128 fd20:ce::254/128 100.100.100.200/32 168.63.129.16/32 192.0.0.192/32"
)
"""Where clouds hand out credentials: link-local, AWS and Google on IPv6, Alibaba, Azure, Oracle."""

NEVER = METADATA + _networks("0.0.0.0/8 224.0.0.0/4 240.0.0.0/4 ::/128 fe80::/10 fec0::/10 ff00::/8 100::/64 2001::/32")
"""Unspecified, link-local, multicast, reserved, broadcast, discard, Teredo (a tunnel whose end cannot be judged)."""

INTERNAL = _networks(
    "10.0.0.0/8 127.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24"
    " 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 ::1/128 fc00::/7 64:ff9b:1::/48"
    " 2001:2::/48 2001:10::/28 2001:20::/28 2001:db8::/32 3fff::/20 5f00::/16"
)
"""Loopback, private, carrier-grade NAT, unique local, and ranges kept for benchmarks and documentation."""

GLOBAL_IPV6 = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
IPV4_COMPATIBLE = IPv6Network("::/96")
LOOPBACK_IPV6 = IPv6Address("::1")
LOW_32_BITS = 0xFFFF_FFFF


def refusal(address: str, *, internal: bool) -> str | None:
    """Why nothing may be sent to this IP address, written as a socket takes it; None where it may."""
    try:
        ip = _innermost(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return f"{address} is not an IP address"
    if _within(ip, NEVER):
        return f"{address} is link-local, a metadata service or not a host's address: never a target"
    if _within(ip, INTERNAL):
        return None if internal else f"{address} is private or loopback, and the target does not say `internal = true`"
    if isinstance(ip, IPv6Address) and ip not in GLOBAL_IPV6:
        return f"{address} is not a global address"
    return None


def _within(ip: IPv4Address | IPv6Address, networks: tuple[Network, ...]) -> bool:
    return any(ip in network for network in networks)  # another version's network never holds it


def _innermost(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that a mapped, compatible, 6to4 or NAT64 address leads to; any other as it is."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip.ipv4_mapped:
        return ip.ipv4_mapped
    if ip.sixtofour:
        return ip.sixtofour
    if ip in NAT64 or (ip in IPV4_COMPATIBLE and ip != LOOPBACK_IPV6 and int(ip) != 0):
        return IPv4Address(int(ip) & LOW_32_BITS)
    return ip
