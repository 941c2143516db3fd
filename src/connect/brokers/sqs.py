"""Amazon SQS and what speaks its protocol: a client, the queue, and what its errors mean.

Credentials come from where AWS's own tools look for them: environment, profile, role of the machine.
"""

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, Final, TypeVar

from aiobotocore.config import AioConfig  # pyright: ignore[reportMissingTypeStubs] - its stubs weigh 60 MB
from aiobotocore.session import AioSession  # pyright: ignore[reportMissingTypeStubs]
from botocore import exceptions  # pyright: ignore[reportMissingTypeStubs]

from connect.brokers.address import Address, BrokerMisconfigured, BrokerUnavailable, trouble
from connect.brokers.look import Look

T = TypeVar("T")

CALL_MAX: Final = 10
"""Messages in one call, as SQS has it."""
VISIBILITY_S: Final = 60
"""A message is its reader's for this long; `keep` begins it anew."""
RETENTION_S: Final = 14 * 86_400
CALLS_AT_ONCE: Final = 50
COUNTS: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
OURS: Final = frozenset(
    "AccessDenied AccessDeniedException AuthFailure InvalidClientTokenId SignatureDoesNotMatch InvalidAddress"
    " UnrecognizedClientException InvalidAttributeName InvalidParameterValue InvalidSecurity OptInRequired".split()
)


class Queue:
    """One queue, opened. Leave it with `close`."""

    def __init__(self, address: Address, *, timeout_s: float, connect_timeout_s: float = 5.0) -> None:
        self.address = address
        self.url = ""
        self._exits = contextlib.AsyncExitStack()
        self._config = AioConfig(
            connect_timeout=connect_timeout_s,
            read_timeout=timeout_s,
            retries={"max_attempts": 0},
            max_pool_connections=CALLS_AT_ONCE,
        )
        self.client: Any = None

    async def open(self) -> None:
        """Makes the queue where it does not exist, a FIFO one where its name ends in `.fifo`.

        Raises `BrokerUnavailable`, `BrokerMisconfigured`; then nothing of it is left open.
        """
        if await self.find():
            return
        try:
            with broker_errors(self.address):
                self.url = await self._make()
        except BrokerUnavailable:
            await self.close()
            raise

    async def find(self) -> bool:
        """Connects; whether the queue exists. Raises as `open` does."""
        session: Any = AioSession()
        made = session.create_client(
            "sqs", region_name=self.address.host, endpoint_url=self.address.options.get("endpoint"), config=self._config
        )
        try:
            with broker_errors(self.address):
                self.client = await self._exits.enter_async_context(made)
                self.url = await self._find() or ""
        except BrokerUnavailable:
            await self.close()
            raise
        return bool(self.url)

    async def close(self) -> None:
        with contextlib.suppress(exceptions.BotoCoreError, OSError, TimeoutError):
            await self._exits.aclose()
        self._exits = contextlib.AsyncExitStack()

    async def _find(self) -> str | None:
        try:
            return (await self.client.get_queue_url(QueueName=self.address.name))["QueueUrl"]
        except exceptions.ClientError as error:
            if "NonExistentQueue" in code_of(error) or "QueueDoesNotExist" in code_of(error):
                return None
            raise

    async def _make(self) -> str:
        attributes = {"VisibilityTimeout": str(VISIBILITY_S), "MessageRetentionPeriod": str(RETENTION_S)}
        if self.address.name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        return (await self.client.create_queue(QueueName=self.address.name, Attributes=attributes))["QueueUrl"]


@contextlib.contextmanager
def broker_errors(address: Address) -> Generator[None]:
    """Errors of the client as `BrokerUnavailable` or, where somebody has to mend something, `BrokerMisconfigured`."""
    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.NoRegionError) as error:
        raise BrokerMisconfigured(f"{address.shown}: {error}") from error
    except exceptions.ClientError as error:
        kind = BrokerMisconfigured if code_of(error) in OURS else BrokerUnavailable
        raise kind(f"{address.shown}: {error}") from error
    except (exceptions.BotoCoreError, OSError, TimeoutError) as error:
        raise trouble(address, error) from error


def code_of(error: exceptions.ClientError) -> str:
    response: Any = error.response
    return str(response.get("Error", {}).get("Code", ""))


def calls(items: Sequence[T]) -> list[Sequence[T]]:
    """The items in parts that one call takes."""
    return [items[start : start + CALL_MAX] for start in range(0, len(items), CALL_MAX)]


async def look(address: Address) -> Look:
    """The queue, and what waits in it or is with a reader."""
    queue = Queue(address, timeout_s=5)
    kind = "FIFO queue" if address.name.endswith(".fifo") else "queue"
    try:
        if not await queue.find():
            return Look(kind, None)
        with broker_errors(address):
            answer = await queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=list(COUNTS))
    finally:
        await queue.close()
    return Look(kind, sum(int(answer["Attributes"][name]) for name in COUNTS))
