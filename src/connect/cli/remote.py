"""Commands as clients of the API: one request, one answer; every failure is a sentence on stderr and an exit code."""

import http.client
import os
import ssl
from collections.abc import Mapping
from typing import Any, NoReturn, cast
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct

from connect.cli.output import Exit, fail

URL_DEFAULT = "http://127.0.0.1:8080"
TIMEOUT_S = 60
"""Longer than any statement of the server may take."""
PORTS = {"http": 80, "https": 443}

Params = Mapping[str, object]


class Answer(Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Remote:
    """The API at one address with one key. Follows no redirects and no proxies: the key goes nowhere else."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self.key = key
        self._parts = urlsplit(self.url)

    def get(self, path: str, params: Params | None = None, **headers: str) -> Answer:
        return self.call("GET", path, params=params, headers=headers)

    def post(self, path: str, body: object = None, params: Params | None = None, **headers: str) -> Answer:
        return self.call("POST", path, params=params, body=body, headers=headers)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """An answer below 400. Ends the command on any other, and where there is none."""
        answer = self.ask(method, path, params=params, body=body, headers=headers)
        if answer.status >= http.HTTPStatus.MULTIPLE_CHOICES:
            refuse(answer, self.url)
        return answer

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any answer. Ends the command where there is none. Header names are written with `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        sent["Authorization"] = f"Bearer {self.key}"
        data = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        target = self._parts.path + path + _query(params or {})
        connection = self._connection()
        try:
            connection.request(method, target, body=data, headers=sent)
            reply = connection.getresponse()
            return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            self._unreachable(error)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port or PORTS[self._parts.scheme]
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

    def refuse(self, answer: Answer) -> NoReturn:
        """Ends the command with what the answer says."""
        refuse(answer, self.url)

    def _unreachable(self, error: Exception) -> NoReturn:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        fail(
            Exit.UNREACHABLE,
            f"no answer from Connect at {self.url}: {reason}. "
            "`connect run` starts one on this machine; CONNECT_URL names another.",
        )


def remote(environ: Mapping[str, str] = os.environ) -> Remote:
    """The API the environment names. Ends the command on an address or a key that cannot be one."""
    url = environ.get("CONNECT_URL") or URL_DEFAULT
    key = (environ.get("CONNECT_API_KEY") or "").strip()
    if not _is_address(url):
        fail(Exit.USAGE, f"CONNECT_URL must be an address such as {URL_DEFAULT}, not {url!r}.")
    if not key:
        fail(
            Exit.UNREACHABLE,
            "CONNECT_API_KEY is not set: put a key in it (`connect run` prints one, `connect keys create` makes one).",
        )
    if not (key.isascii() and key.isprintable()):
        fail(Exit.UNREACHABLE, "CONNECT_API_KEY holds characters that no key has: copy it again.")
    return Remote(url, key)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in PORTS and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def segment(text: str) -> str:
    """A value as one part of a path."""
    return quote(text, safe="")


def given(**values: object) -> dict[str, Any]:
    """The values that were given: no nulls, no empty lists."""
    return {name: value for name, value in values.items() if value not in (None, [], "")}


def _query(params: Params) -> str:
    return "?" + urlencode(given(**params), doseq=True) if given(**params) else ""


def refuse(answer: Answer, url: str) -> NoReturn:
    """Ends the command with what a problem document says."""
    problem = read_problem(answer)
    detail = str(problem.get("detail") or problem.get("title") or "it gave no reason")
    if answer.status in (401, 403):
        fail(Exit.UNREACHABLE, f"{url} does not accept CONNECT_API_KEY for this: {detail}.")
    if not problem:
        fail(Exit.UNREACHABLE, f"{url} answered {answer.status}, and not as Connect does: is it Connect's address?")
    if answer.status == 429 or answer.status >= 500:
        fail(Exit.UNREACHABLE, f"{url} cannot do it now ({answer.status}): {detail}. Trying again later is safe.")
    fail(Exit.REFUSED, detail, [line for line in located(problem) if not _says(detail, line)])


def _says(sentence: str, line: str) -> bool:
    """A fault that the sentence tells already, with its words, is not told twice."""
    return line.partition(": ")[2] in sentence


def read_problem(answer: Answer) -> dict[str, Any]:
    """The problem document; empty where the answer is none."""
    try:
        problem = answer.json
    except msgspec.DecodeError:
        return {}
    return cast("dict[str, Any]", problem) if isinstance(problem, dict) else {}


def located(problem: Mapping[str, Any]) -> list[str]:
    """The single faults of a problem document, each with its place."""
    return [_located(fault) for fault in cast("list[dict[str, Any]]", problem.get("errors") or [])]


def _located(fault: Mapping[str, Any]) -> str:
    line = fault.get("line")
    place = f"line {line}, column {fault.get('column', 1)}" if line else fault.get("pointer", "#")
    return f"{place}: {fault.get('detail', '')}"
