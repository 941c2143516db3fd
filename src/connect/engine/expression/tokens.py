"""Reads from the text what the tree does not keep and amounts need: the digits of a literal, the text of a test."""

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      (?P<space>  \s+ | //[^\n]* )
    | (?P<raw>    (?:[rR][bB]?|[bB][rR]) (?: \"{3}.*?\"{3} | '{3}.*?'{3} | "[^"\n]*" | '[^'\n]*' ) )
    | (?P<long>   [bB]? (?: \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3} ) )
    | (?P<text>   [bB]? (?: "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' ) )
    | (?P<number> (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? )
    | (?P<name>   [A-Za-z_]\w* )
    | (?P<mark>   . )
    """,
    re.VERBOSE | re.DOTALL,
)
_NUMBER: Final = re.compile(r"(-?)\s*((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)(?![\w.])")
_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_BEFORE_TEST: Final = frozenset("?:,")


def number_at(text: str, at: int) -> str | None:
    """The decimal literal that starts at the offset, with its sign, or None for another notation (hexadecimal)."""
    found = _NUMBER.match(text, at)
    return None if found is None else found[1] + found[2]


def test_before(text: str, question_mark: int) -> str:
    """The text of the test that ends at this `?`, with everything before it blanked so that offsets stay.

    `?:` binds weakest, so its test reaches back to the bracket around it, a comma, or another `?` or `:`.
    The text must have been parsed: nothing is verified here.
    """
    depth, starts = 0, [0]
    for token in _TOKEN.finditer(text, 0, question_mark):
        mark = token["mark"]
        if mark is None:
            continue
        if mark in _OPENING:
            depth += 1
            starts.append(token.end())
        elif mark in _CLOSING:
            depth -= 1
            starts.pop()
        elif mark in _BEFORE_TEST:
            starts[depth] = token.end()
    start = starts[depth]
    return re.sub(r"[^\n]", " ", text[:start]) + text[start:question_mark]
