"""Which hosts are this machine or a private network, as far as their names tell."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback_host(host: str) -> bool:
    """Tell whether a host of a URL is surely this machine."""
    if host.lower().rstrip(".") in ("localhost", "ip6-localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_private_host(host: str) -> bool:
    """
    Tell whether a host of a URL is surely this machine or in a private network.

    A name without a dot is one of a local network; link-local is none: cloud metadata is there.
    """
    if is_loopback_host(host):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return "." not in host.rstrip(".")
    return address.is_private and not address.is_link_local and not address.is_unspecified
