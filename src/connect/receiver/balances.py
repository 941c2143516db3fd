"""Compares balances with effects, where the target can be asked: a target that acts twice may well answer once.

Users of a run are new, so that nothing else moves their balances.
"""

import asyncio
import time
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast
from urllib.parse import quote, unquote

import aiohttp
import msgspec
from msgspec import Struct

from connect.model import ClaimedCommand
from connect.receiver.findings import Finding, fail, ok, warn

PLACE: Final = "{user}"
PAUSE_S: Final = 0.2
HTTP_NOT_FOUND: Final = 404


class BalanceSource(Struct, frozen=True, kw_only=True):
    """Where a user's balance is read."""

    url: str
    """With `{user}` in it, and a JSON pointer (RFC 6901) behind `#` where its answer has several numbers."""
    headers: dict[str, str] = {}


class Unreadable(Exception):
    """The balance cannot be read; the sentence says why."""


class _User(Struct):
    user_id: str


class Balances:
    """Balances before and after. Without a source nothing is read."""

    def __init__(self, source: BalanceSource | None, session: aiohttp.ClientSession, patience_s: float) -> None:
        self._source, self._session, self._patience_s = source, session, patience_s
        self._before: dict[str, Decimal] = {}
        self._expected: dict[str, tuple[str, int]] = {}
        self._fault: str | None = None

    @property
    def readable(self) -> bool:
        return self._source is not None and self._fault is None

    async def begin(self, user: str) -> str:
        """Reads what the user has before anything is sent; gives the user back."""
        if self.readable:
            try:
                self._before[user] = await self._read(user)
            except Unreadable as error:
                self._fault = str(error)
        return user

    def expect(self, what: str, command: ClaimedCommand, amount: int) -> None:
        """By so much the balance of this command's user has to move, up or down."""
        self._expected[msgspec.json.decode(command.body, type=_User).user_id] = what, amount

    async def findings(self) -> list[Finding]:
        if self._source is None:
            unseen = "not checked: that it acted once, and did not only answer alike, nobody saw"
            return [warn("balances", unseen, "give --balance-url, where a user's balance is read")]
        if self._fault is not None:
            mend = f"--balance-url is an address with {PLACE} in it, whose answer is JSON with one number"
            return [fail("balances", self._fault, mend)]
        return await asyncio.gather(*(self._finding(user, *wanted) for user, wanted in self._expected.items()))

    async def _finding(self, user: str, what: str, amount: int) -> Finding:
        check, deadline = f"the balance after {what}", time.monotonic() + self._patience_s
        while True:
            try:
                moved = abs(await self._read(user) - self._before[user])
            except Unreadable as error:
                return fail(check, str(error), "answer the balance throughout")
            if moved >= amount or time.monotonic() > deadline:  # more never becomes less
                break
            await asyncio.sleep(PAUSE_S)
        if moved == amount:
            return ok(check, f"moved by {amount}")
        if moved < amount:
            mend = "does the address show this user's balance, in the unit of --unit?"
            return fail(check, f"moved by {moved} within {self._patience_s:g} s, and {amount} is owed", mend)
        return fail(
            check,
            f"moved by {moved}, and {amount} is owed: it acted more often than it answered for",
            "keep the key in the transaction of the effect, as unique: the answer alone being the same is not enough",
        )

    async def _read(self, user: str) -> Decimal:
        if self._source is None:
            raise Unreadable("there is no --balance-url")
        address, _, pointer = self._source.url.partition("#")
        url = address.replace(PLACE, quote(user, safe=""))
        try:
            async with self._session.get(url, headers=self._source.headers, allow_redirects=False) as reply:
                status, body = reply.status, await reply.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreadable(f"{type(error).__name__}: {error}") from error
        if status == HTTP_NOT_FOUND:
            return Decimal()  # a user nobody knows yet has nothing
        if status >= 300:
            raise Unreadable(f"HTTP {status}")
        return balance_in(body, pointer)


def balance_in(body: bytes, pointer: str = "") -> Decimal:
    """The one number in a JSON document (at `pointer`), written as number or text; none: a user without an account.

    Raises `Unreadable`.
    """
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(f"no JSON: {error}") from error
    numbers = list(_numbers(_at(document, pointer)))
    if len(numbers) > 1:
        raise Unreadable(f"{len(numbers)} numbers in the answer: a JSON pointer behind # says which is the balance")
    return numbers[0] if numbers else Decimal()


def _at(document: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        match document:
            case dict():
                document = cast("dict[str, Any]", document).get(name)
            case list() if name.isdigit() and int(name) < len(cast("list[Any]", document)):
                document = cast("list[Any]", document)[int(name)]
            case _:
                return None
    return document


def _numbers(value: Any) -> Iterator[Decimal]:
    match value:
        case dict():
            for each in cast("dict[str, Any]", value).values():
                yield from _numbers(each)
        case list():
            for each in cast("list[Any]", value):
                yield from _numbers(each)
        case bool() | None:
            return
        case int() | float() | str():
            try:
                number = Decimal(str(value))
            except InvalidOperation:
                return
            if number.is_finite():
                yield number
        case _:
            return
