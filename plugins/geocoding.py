"""Plugin type ``geocoding``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
from msgspec import Meta

from gateway import message as msg
from gateway import plugin
from gateway.errors import ItemError, RemoteRefused
from gateway.expressions.travel_functions import distance
from gateway.plugin import Context, Message, RemotePlugin
from gateway.plugin.base import Mask
from gateway.plugin.cache import Cache
from gateway.plugin.lookups import Batch, Bounds, Lookups
from gateway.plugin.web_options import CaFile, Headers, Uri, check_headers, check_uri
from gateway.store.masks import Masks
from gateway.web import Answer, WebClient

Point = tuple[float, float]
Address = dict[str, str]

PUBLIC = "nominatim.openstreetmap.org"
"""Its policy (operations.osmfoundation.org/policies/nominatim): a request a second, and a User-Agent that names us."""
USER_AGENT = "avl-gateway (self-hosted telematics gateway)"
ANSWER_MOST = 64 * 1024
VALUE_MOST = 1024
DEVICES_MOST = 10_000
"""Whose last address is remembered."""
LAST_SECONDS = 30 * 86400.0

# Where the parts of an address are in Nominatim's answer; which of them there are depends on the country.
PARTS: dict[str, tuple[str, ...]] = {
    "address.country": ("country",),
    "address.state": ("state", "province", "region"),
    "address.county": ("county", "state_district"),
    "address.city": ("city", "town", "village", "municipality", "hamlet"),
    "address.district": ("suburb", "city_district", "district", "borough", "quarter", "neighbourhood"),
    "address.postcode": ("postcode",),
    "address.street": ("road", "pedestrian", "footway", "path", "cycleway"),
    "address.house.number": ("house_number",),
}
PARAMETERS = ("address", "address.country.code", *PARTS)


class Geocoding(RemotePlugin):
    """Adds the address of a message's position: address (all of it as text), address.country, address.country.code
    (ISO 3166, upper case), address.state, address.county, address.city, address.district, address.postcode,
    address.street and address.house.number, as far as there are any. A server with Nominatim's interface is asked. What
    cannot be asked in time passes without an address."""

    class Config(plugin.Config):
        """The options."""

        uri: Annotated[
            Uri, Meta(description="address of the server, without /reverse; the public one takes one request a second")
        ] = f"https://{PUBLIC}"
        headers: Headers = {}
        user_agent: Annotated[
            str,
            Meta(
                min_length=1,
                max_length=256,
                description="header User-Agent; the public server asks for one that says who you are",
            ),
        ] = USER_AGENT
        language: Annotated[
            str,
            Meta(max_length=64, pattern=r"^[A-Za-z0-9,;=.*-]*$", description="languages of the address, such as de,en"),
        ] = ""
        zoom: Annotated[
            int,
            Meta(ge=3, le=18, description="how exact: 3 country, 5 state, 8 county, 10 city, 16 street, 18 building"),
        ] = 18
        fields: Annotated[
            list[Mask],
            Meta(max_length=50, description="which parameters are added: names, or masks; none: all of them are"),
        ] = []
        digits: Annotated[
            int,
            Meta(
                ge=2, le=6, description="decimal places of the coordinates that are asked for: 4 are 11 m, 3 are 110 m"
            ),
        ] = 4
        min_distance: Annotated[
            float,
            Meta(ge=0, le=100_000, description="meters that a device moves until it has a new address; 0: any"),
        ] = 20.0
        rate: Annotated[
            float, Meta(ge=0, le=1000, description="requests a second at most; 0: no such limit, for a server of yours")
        ] = 1.0
        wait: Annotated[
            float,
            Meta(ge=0, le=30, description="seconds that messages may wait for their turn; then they pass without"),
        ] = 10.0
        timeout: Annotated[float, Meta(ge=0.1, le=25, description="seconds that an answer may take")] = 10.0
        cache_time: Annotated[int, Meta(ge=0, le=30 * 86400, description="seconds that an address is remembered")] = (
            86400
        )
        ca_file: CaFile = ""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._masks = Masks(config.fields) if config.fields else None
        self._uri = config.uri.rstrip("/") + "/reverse"
        self._lookups: Lookups[Point, Address] = Lookups(
            self._ask, Bounds(seconds=config.cache_time, nothing_seconds=min(config.cache_time, 600), rate=config.rate)
        )
        self._last: Cache[int, tuple[Point, Address]] = Cache(DEVICES_MOST, LAST_SECONDS)
        self._client = WebClient(
            timeout=config.timeout,
            headers={"user-agent": config.user_agent, **{name.lower(): text for name, text in config.headers.items()}},
            ca_file=config.ca_file,
            answer_most=ANSWER_MOST,
        )

    @classmethod
    def check(cls, config: Config) -> None:
        """Address and headers; the public server is not asked more often than it allows."""
        check_uri(config.uri)
        check_headers(config.headers)
        check_headers({"user-agent": config.user_agent}, "user_agent")
        if urlsplit(config.uri).hostname == PUBLIC and not 0 < config.rate <= 1:
            raise ItemError("rate should be at most 1 with the public server: its policy asks so", "configuration.rate")
        if "?" in config.uri or "#" in config.uri:
            raise ItemError("uri should have no query: put keys into headers", "configuration.uri")

    async def open(self) -> None:
        """The certificates are there."""
        await self._client.open()

    async def close(self) -> None:
        """What is under way has its answer first."""
        await self._client.close()

    async def process_many(self, messages: Sequence[Message], context: Context) -> Sequence[Message | None]:
        """Those with a position have an address, where there is one."""
        batch = Batch(self._lookups, self.config.wait, self.name)
        for message in messages:
            if msg.has_coordinates(message) and message.get("position.valid") is not False:
                message.update(await self._address(message, context.device.id, batch))
        batch.end()
        return messages

    async def _address(self, message: Message, device_id: int, batch: Batch[Point, Address]) -> Address:
        point = message[msg.LATITUDE], message[msg.LONGITUDE]
        last = self._last.get(device_id)
        if last is not None and distance(*point, *last[0]) * 1000 < self.config.min_distance:
            return last[1]
        digits = self.config.digits
        address = await batch.find((round(point[0], digits), round(point[1], digits)))
        if address is None:
            return {}
        self._last.put(device_id, (point, address))
        return address

    async def _ask(self, point: Point) -> Address | None:
        params: dict[str, Any] = {"format": "jsonv2", "lat": point[0], "lon": point[1], "zoom": self.config.zoom}
        if self.config.language:
            params["accept-language"] = self.config.language
        answer = await self._client.request("GET", self._uri, params=params)
        address = _address_of(answer)
        if address is None or self._masks is None:
            return address
        return {name: value for name, value in address.items() if self._masks.choose(name)}


def _address_of(answer: Answer) -> Address | None:
    """Nominatim answers 200 with ``error`` where there is nothing, such as at sea. Raises RemoteRefused."""
    if answer.status != 200:
        raise answer.refusal()
    try:
        said = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        said = None
    parts = said.get("address") if isinstance(said, dict) else None
    if isinstance(said, dict) and "error" in said:
        return None
    if not isinstance(said, dict) or not isinstance(parts, dict):
        raise RemoteRefused(
            f"an object with address should be answered: {answer.excerpt}", status=answer.status, answer=answer.excerpt
        )
    found = {
        "address": _text(said, ("display_name",)),
        "address.country.code": _text(parts, ("country_code",)).upper(),
        **{name: _text(parts, keys) for name, keys in PARTS.items()},
    }
    return {name: value for name, value in found.items() if value}


def _text(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    texts = (values.get(key) for key in keys)
    return next((text[:VALUE_MOST] for text in texts if isinstance(text, str) and text), "")
