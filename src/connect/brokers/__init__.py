"""The bus in and the queues out share, of each broker, its address, a client, and a look at what exists there."""

from connect.brokers.address import BROKER_SCHEMES, Address, BrokerMisconfigured, BrokerUnavailable, parse_address

__all__ = ["BROKER_SCHEMES", "Address", "BrokerMisconfigured", "BrokerUnavailable", "parse_address"]
