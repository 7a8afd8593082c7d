"""Values to the bytes and texts that travel.

Owns the choice of the JSON encoder and the reading of query strings. Knows nothing of requests.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl


class Query(dict[str, str]):
    """The parameters of a query: a dict of the last value of each name.

    `getall` gives every value of a name in the order they were sent. Values are percent-decoded
    once, after the query was split; parameters without a value are left out, as
    `urllib.parse.parse_qsl` does.
    """

    __slots__ = ("_pairs",)

    _pairs: list[tuple[str, str]]

    def getall(self, name: str) -> list[str]:
        """All values of the parameter; an empty list when there are none."""
        return [value for known, value in self._pairs if known == name]


def parse_query(query: str) -> Query:
    """Reads a query string as it was sent."""
    pairs = parse_qsl(query)
    parsed = Query(pairs)
    parsed._pairs = pairs
    return parsed


def dumps(value: Any) -> str:
    """JSON text of a value; TypeError or ValueError when it has none."""
    return json.dumps(value)


def loads(text: str) -> Any:
    """The value of a JSON text; `json.JSONDecodeError` when it is malformed."""
    return json.loads(text)
