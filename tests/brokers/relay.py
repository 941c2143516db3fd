"""The way to a server, which tests may cut or silence."""

import asyncio
import socket
from contextlib import suppress

from tests.conftest import free_port


class Relay:
    """A port of our own that leads to a broker, and that can be taken away and given back."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self.port = free_port()
        self.silent = False
        """true: messages vanish, and nobody is told."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Breaks every connection; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        """Gone: connections break and new ones are refused until `start`."""
        if self._server is not None:
            self._server.close()
            self.cut()
            await self._server.wait_closed()
            self._server = None

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._to)
        except OSError:
            writer.close()
            return
        both = {writer, back}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(65_536):
                if not self.silent:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


def answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
