"""What a handler gives back, and how it becomes JSON: flespi's envelope ``{"result": [...], "errors": [...]}``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from attrs import define, field

from gateway.api.errors import ApiError

Texts = AsyncIterator[list[bytes]]
"""A list too long to be held: chunks of items that are JSON already."""


@define
class Answer:
    """``result`` is a list of what JSON can hold (or msgspec Structs), or :data:`Texts`, which are streamed.

    ``extra`` are further keys of the envelope, such as ``next_key``. ``status`` None: 200, or that of the first error
    where nothing succeeded. With ``body`` the answer is these bytes, without an envelope.
    """

    result: Sequence[Any] | Texts = ()
    errors: list[ApiError] = field(factory=list)
    extra: dict[str, Any] = field(factory=dict)
    status: int | None = None
    body: bytes | None = None

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        if self.status is not None:
            return self.status
        if self.errors and isinstance(self.result, Sequence) and not self.result:
            return self.errors[0].status
        return 200

    def tail(self) -> bytes:
        """The end of the envelope, after the items of the result."""
        rest = {**self.extra}
        if self.errors:
            rest["errors"] = [error.as_dict() for error in self.errors]
        encoded = msgspec.json.encode(rest)
        return b"]}" if encoded == b"{}" else b"]," + encoded[1:]

    def whole(self) -> bytes:
        """The envelope as one text; only where ``result`` is a list."""
        if self.body is not None:
            return self.body
        return HEAD + msgspec.json.encode(list(self.result))[1:-1] + self.tail()  # type: ignore[arg-type]


HEAD = b'{"result":['


def failed(error: ApiError) -> Answer:
    """The answer that is nothing but an error."""
    return Answer(errors=[error], status=error.status)
