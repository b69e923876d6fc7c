"""What a client is told when its request cannot be done: a code, a reason that a person can act on, and the field.

Codes and the form of an error are flespi's where its documentation shows them (1 authentication, 2 bad request, 3 not
permitted); the others are ours, and docs/rest.md lists them all.
"""

from __future__ import annotations

from typing import Any

from gateway.errors import PeerError

UNAUTHORIZED, BAD_REQUEST, DENIED, NO_ROUTE, TOO_LARGE, TOO_MANY, UNAVAILABLE, INTERNAL = range(1, 9)

NOT_PERMITTED = "action is not permitted by ACL"
NO_ITEM = "access denied or unable to process the item"
"""flespi's words for an id that does not exist or that the token may not touch; it does not tell which."""


class ApiError(PeerError):
    """One item of ``errors``; raised, it is the whole answer. ``index`` is the place in a request's array."""

    def __init__(self, status: int, code: int, reason: str, **details: Any) -> None:
        """``details``: ``field``, ``id``, ``index``, ``schema_hint``, where there is something to say."""
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason
        self.details = {name: value for name, value in details.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """As it stands in ``errors``."""
        return {"code": self.code, "reason": self.reason, **self.details}

    def at(self, **details: Any) -> ApiError:
        """The same, with more details."""
        return ApiError(self.status, self.code, self.reason, **{**self.details, **details})

    @classmethod
    def bad_request(cls, reason: str, **details: Any) -> ApiError:
        """400: the request is wrong, and the reason says what would be right."""
        return cls(400, BAD_REQUEST, reason, **details)

    @classmethod
    def unauthorized(cls, reason: str) -> ApiError:
        """401: no token, or one that is not known, expired or disabled."""
        return cls(401, UNAUTHORIZED, reason)

    @classmethod
    def not_permitted(cls) -> ApiError:
        """403: the token's rights do not include this operation."""
        return cls(403, DENIED, NOT_PERMITTED)

    @classmethod
    def denied(cls, id: Any) -> ApiError:
        """403, as flespi for an id that it does not know: no such item, or not for this token."""
        return cls(403, DENIED, NO_ITEM, id=id)

    @classmethod
    def no_route(cls, reason: str) -> ApiError:
        """404: no such path."""
        return cls(404, NO_ROUTE, reason)

    @classmethod
    def wrong_method(cls, reason: str) -> ApiError:
        """405: the path exists, but not with this method."""
        return cls(405, NO_ROUTE, reason)

    @classmethod
    def too_large(cls, reason: str) -> ApiError:
        """413: more bytes than the operation takes."""
        return cls(413, TOO_LARGE, reason)

    @classmethod
    def too_many(cls, reason: str) -> ApiError:
        """429: a limit on how much at once, or how often."""
        return cls(429, TOO_MANY, reason)

    @classmethod
    def unavailable(cls, reason: str) -> ApiError:
        """503: the same request may succeed later."""
        return cls(503, UNAVAILABLE, reason)

    @classmethod
    def internal(cls) -> ApiError:
        """500: a bug of ours; the log has it."""
        return cls(500, INTERNAL, "internal error: it is a bug, the gateway's log has the details")
