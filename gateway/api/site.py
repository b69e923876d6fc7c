"""HTTP: one resource that finds a request's operation, runs its handler, and writes the answer at the client's pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Request

from gateway import metrics
from gateway.api.answers import Answer, failed
from gateway.api.errors import ApiError
from gateway.api.http import ApiRequest, ApiSite
from gateway.api.operations import Operation, Router
from gateway.api.outlet import Gone, Outlet
from gateway.api.parts import Parts
from gateway.api.request import make_call, segments_of
from gateway.errors import GatewayError, StoreError, StoreFull

HANDLER_TIME = 90.0
"""Seconds until a handler must have its answer; the longest wait that a client may ask for is 60 s."""
CALLS_MOST = 500
"""Requests under way at once; more are refused with 503."""
GZIP_LEVEL = 1
"""Level 6 costs three times as much and saves an eighth of messages' JSON."""
ALLOWED_HEADERS = "Authorization, Content-Type, x-flespi-app, x-flespi-cid, x-flespi-trace"


class ApiResource(Resource):
    """All paths; a leaf, for paths are data in the table of operations."""

    isLeaf = True
    log = Logger()

    def __init__(self, parts: Parts, operations: Sequence[Operation], cors_origins: Sequence[str] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._parts = parts
        self._router = Router(operations)
        self._cors_origins = cors_origins
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self, timeout: float) -> None:
        """Let what is under way end, ``timeout`` seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def render(self, request: ApiRequest) -> int:
        """Whatever the method."""
        request.set_header("server", "avl-gateway")  # Twisted would name its version
        task = asyncio.ensure_future(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        request.notifyFinish().addErrback(lambda _: task.cancel())
        return NOT_DONE_YET

    async def _serve(self, request: ApiRequest) -> None:
        started = time.monotonic()
        name = "none"
        outlet = Outlet(request)
        try:
            request.set_header("content-type", "application/json")  # else Twisted says text/html
            self._allow_origin(request)
            if request.method == b"OPTIONS":
                answer = self._preflight(request)
            else:
                operation, path = self._router.find(request.method.decode("ascii", "replace"), segments_of(request))
                name = operation.name
                request.set_header("content-type", operation.content_type)
                answer = await self._answer(operation, path, request)
            await self._write(request, outlet, answer)
        except ApiError as error:
            if error.status == 405:
                request.set_header("allow", ", ".join(self._router.methods(segments_of(request))))
            await self._write(request, outlet, failed(error))
        except Gone:
            metrics.count("api_clients_gone")
        except GatewayError as error:
            self.log.warn(
                "{method} {uri!r}: cut off: {error}", method=request.method, uri=request.uri, error=str(error)
            )
            if outlet.has_started:
                outlet.abort()
            else:
                await self._write(request, outlet, failed(self._as_api_error(error, request)))
        except Exception:
            self.log.failure("{method} {uri!r}", method=request.method, uri=request.uri)
            outlet.abort()
        finally:
            status = str(request.code)
            metrics.count("api_requests", operation=name, status=status)
            metrics.observe("api_seconds", time.monotonic() - started, operation=name)

    async def _answer(self, operation: Operation, path: dict[str, str], request: ApiRequest) -> Answer:
        if len(self._tasks) > CALLS_MOST:
            raise ApiError.unavailable(f"{CALLS_MOST} requests are under way: try again a little later")
        call = make_call(operation, path, request, self._parts)
        try:
            async with asyncio.timeout(HANDLER_TIME):
                answer = await operation.handler(call)
        except TimeoutError:
            raise ApiError.unavailable(f"there was no answer within {HANDLER_TIME:.0f} s") from None
        except Exception as error:
            raise self._as_api_error(error, request) from error
        answer.errors = [*call.errors, *answer.errors]
        if call.warnings:
            answer.extra.setdefault("warnings", [{"reason": text} for text in call.warnings])
        return answer

    def _as_api_error(self, error: Exception, request: Request) -> ApiError:
        if isinstance(error, ApiError):
            return error
        if isinstance(error, StoreFull):
            return ApiError.unavailable("Redis has no room: nothing can be stored until some is freed")
        if isinstance(error, StoreError):
            return ApiError.unavailable("Redis does not answer: the same request may succeed later")
        if isinstance(error, GatewayError):
            return ApiError.bad_request(str(error))
        self.log.failure("{method} {uri!r}", Failure(error), method=request.method, uri=request.uri)
        return ApiError.internal()

    async def _write(self, request: ApiRequest, outlet: Outlet, answer: Answer) -> None:
        request.setResponseCode(answer.status_code)
        if answer.status_code == 503:
            request.set_header("retry-after", "5")
        if answer.body is not None or isinstance(answer.result, Sequence):
            await outlet.finish(answer.whole())
        else:
            await outlet.stream(answer.result, answer)

    def _allow_origin(self, request: ApiRequest) -> None:
        origin = request.getHeader("Origin")
        if origin is None or not self._cors_origins:
            return
        if "*" in self._cors_origins or origin in self._cors_origins:
            request.set_header("access-control-allow-origin", origin)
            request.set_header("vary", "Origin")

    def _preflight(self, request: ApiRequest) -> Answer:
        """A browser asks before it sends a token to another origin (Fetch, "CORS-preflight request")."""
        methods = self._router.methods(segments_of(request))
        if not methods:
            raise ApiError.no_route("there is no such path")
        allowed = ", ".join([*methods, "OPTIONS"])
        request.set_header("allow", allowed)
        if request.responseHeaders.hasHeader(b"access-control-allow-origin"):
            request.set_header("access-control-allow-methods", allowed)
            request.set_header("access-control-allow-headers", ALLOWED_HEADERS)
            request.set_header("access-control-max-age", "86400")
        return Answer(body=b"")


class FastGzip(GzipEncoderFactory):
    """gzip for those who accept it."""

    compressLevel = GZIP_LEVEL

    def encoderForRequest(self, request: Request) -> Any:
        """None: the answer goes out as it is. To HEAD too, for an encoder writes its end where there is no body."""
        return super().encoderForRequest(request) if request.method != b"HEAD" else None  # type: ignore[no-untyped-call]


def make_site(resource: ApiResource, parts: Parts) -> ApiSite:
    """What an endpoint listens with."""
    return ApiSite(EncodingResourceWrapper(resource, [FastGzip()]), parts)
