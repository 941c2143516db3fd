"""Addresses on brokers: one url says which, where, and what on it."""

import pytest

from connect.brokers import parse_address
from connect.errors import SettingsError


@pytest.mark.parametrize(
    ("url", "server", "name", "shown"),
    [
        ("redis://h:6379/0?stream=a", "redis://h:6379/0", "a", "redis://h:6379/a"),
        ("amqp://u:p@h/?queue=orders.in", "amqp://u:p@h/", "orders.in", "amqp://h/orders.in"),
        ("amqps://u:p%40@h:5671/%2Fshop?queue=a", "amqps://u:p%40@h:5671/%2Fshop", "a", "amqps://h:5671/a"),
        ("nats://h:4222?subject=shop.orders.>", "nats://h:4222", "shop.orders.>", "nats://h:4222/shop.orders.>"),
        ("tls://token@h?subject=a", "tls://token@h", "a", "tls://h/a"),
    ],
)
def test_an_address_says_what_the_client_connects_to_and_is_shown_without_a_password(
    url: str, server: str, name: str, shown: str
):
    address = parse_address(url)
    assert (address.url, address.name, address.shown, repr(address)) == (server, name, shown, f"Address({shown})")


def test_options_of_a_subject_are_read():
    assert parse_address("nats://h?subject=a&stream=S&durable=D").options == {"stream": "S", "durable": "D"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://h/vhost", "needs a name; its form is amqp://user:password@host/vhost?queue=NAME"),
        ("amqp://h/vhost?queue=a&prefetch=5", "has no option 'prefetch' (it has: queue)"),
        ("nats://?subject=a", "needs a host; its form is nats://host:4222?subject=NAME"),
        ("nats://u:secret@h?subject=a&group=b", "has no option 'group' (it has: durable, stream, subject)"),
        ("kafka://h?topic=a", "starts with one of amqp, amqps, nats"),
    ],
)
def test_a_wrong_address_is_told_with_its_form_and_without_its_password(url: str, said: str):
    with pytest.raises(SettingsError) as told:
        parse_address(url)
    assert said in told.value.detail
    assert "secret" not in told.value.detail
