"""Which addresses a command may go to."""

import pytest

from connect.dispatch.targets.guard import refusal

NEVER, INTERNAL, ALWAYS = "never", "internal", "always"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("1.1.1.1", ALWAYS),
        ("93.184.215.14", ALWAYS),
        ("100.63.255.255", ALWAYS),
        ("100.128.0.1", ALWAYS),
        ("172.15.255.255", ALWAYS),
        ("172.32.0.1", ALWAYS),
        ("223.255.255.255", ALWAYS),
        ("2606:4700:4700::1111", ALWAYS),
        ("::ffff:1.1.1.1", ALWAYS),
        ("64:ff9b::101:101", ALWAYS),
        ("2002:101:101::1", ALWAYS),
        ("127.0.0.1", INTERNAL),
        ("127.255.255.254", INTERNAL),
        ("10.0.0.1", INTERNAL),
        ("172.16.0.1", INTERNAL),
        ("172.31.255.255", INTERNAL),
        ("192.168.1.1", INTERNAL),
        ("100.64.0.1", INTERNAL),
        ("100.127.255.255", INTERNAL),
        ("192.0.2.7", INTERNAL),
        ("198.18.0.1", INTERNAL),
        ("::1", INTERNAL),
        ("fc00::1", INTERNAL),
        ("fd12:3456::1", INTERNAL),
        ("2001:db8::1", INTERNAL),
        ("::ffff:127.0.0.1", INTERNAL),
        ("::ffff:10.0.0.1", INTERNAL),
        ("::127.0.0.1", INTERNAL),
        ("64:ff9b::7f00:1", INTERNAL),
        ("2002:7f00:1::1", INTERNAL),
        ("0.0.0.0", NEVER),  # noqa: S104  it is refused here
        ("0.1.2.3", NEVER),
        ("169.254.0.1", NEVER),
        ("169.254.169.254", NEVER),
        ("169.254.170.2", NEVER),
        ("100.100.100.200", NEVER),
        ("168.63.129.16", NEVER),
        ("192.0.0.192", NEVER),
        ("224.0.0.1", NEVER),
        ("239.255.255.255", NEVER),
        ("240.0.0.1", NEVER),
        ("255.255.255.255", NEVER),
        ("::", NEVER),
        ("fe80::1", NEVER),
        ("fe80::1%eth0", NEVER),
        ("febf::1", NEVER),
        ("fec0::1", NEVER),
        ("ff02::1", NEVER),
        ("fd00:ec2::254", NEVER),
        ("fd20:ce::254", NEVER),
        ("2001::1", NEVER),
        ("4000::1", NEVER),
        ("::ffff:169.254.169.254", NEVER),
        ("::ffff:0.0.0.0", NEVER),
        ("::169.254.169.254", NEVER),
        ("64:ff9b::a9fe:a9fe", NEVER),
        ("2002:a9fe:a9fe::1", NEVER),
        ("2130706433", NEVER),
        ("0x7f.1", NEVER),
        ("0177.0.0.1", NEVER),
        ("127.1", NEVER),
        ("localhost", NEVER),
        ("", NEVER),
    ],
)
def test_an_address_is_judged_by_where_it_leads(address: str, expected: str):
    assert (refusal(address, internal=False) is None) == (expected == ALWAYS)
    assert (refusal(address, internal=True) is None) == (expected != NEVER)
