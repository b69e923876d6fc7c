"""Plugin type ``position-lookup``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from gateway import message as msg
from gateway import plugin
from gateway.errors import ItemError
from gateway.plugin import Context, Message, RemotePlugin, unwired
from gateway.plugin.cell_file import CellFile
from gateway.plugin.cell_table import CellTable, Place
from gateway.plugin.cells import Heard, heard
from gateway.plugin.lookups import Batch, Bounds, Lookups
from gateway.plugin.web_options import CaFile, Uri, check_uri
from gateway.web import WebClient

ANSWER_MOST = 64 * 1024


class PositionLookup(RemotePlugin):
    """Sets the position of messages without a valid one, by the cells and Wi-Fi access points that they name:
    position.latitude, position.longitude, position.accuracy (meters), position.valid, and position.source, which is lbs
    (cells) or wifi. They are looked up at Unwired Labs, or in a file of cells as OpenCellID exports it."""

    class Config(plugin.Config):
        """The options."""

        provider: Annotated[
            Literal["unwiredlabs", "csv"],
            Meta(description="who knows where cells are: Unwired Labs' LocationAPI, or a file of yours"),
        ]
        token: Annotated[str, Meta(max_length=256, description="unwiredlabs: your token there")] = ""
        uri: Annotated[Uri, Meta(description="unwiredlabs: its address; us1, us2, eu1 and ap1 are its regions")] = (
            "https://us1.unwiredlabs.com/v2/process.php"
        )
        file: Annotated[
            str,
            Meta(
                max_length=1024,
                description="csv: file on the gateway's disk with rows radio,mcc,net,area,cell,unit,lon,lat,range,... "
                "that may be compressed (.gz); it is read again when it changes",
            ),
        ] = ""
        countries: Annotated[
            list[Annotated[int, Meta(ge=1, le=999, description="mobile country code")]],
            Meta(max_length=50, description="csv: mobile country codes of the rows that are taken; none: all are"),
        ] = []
        cells_most: Annotated[
            int, Meta(ge=1, le=50_000_000, description="csv: rows that are taken at most; a million takes 26 MB")
        ] = 5_000_000
        when: Annotated[
            Literal["missing", "invalid"],
            Meta(
                description="missing: only messages without coordinates; invalid: also those whose position.valid is "
                "false, such as with the coordinates of the last fix"
            ),
        ] = "invalid"
        rate: Annotated[
            float, Meta(ge=0, le=1000, description="unwiredlabs: questions a second at most; 0: no such limit")
        ] = 5.0
        wait: Annotated[
            float,
            Meta(ge=0, le=30, description="unwiredlabs: seconds that messages may wait for their turn; then they pass"),
        ] = 10.0
        timeout: Annotated[float, Meta(ge=0.1, le=25, description="seconds that an answer may take")] = 10.0
        cache_time: Annotated[
            int, Meta(ge=0, le=30 * 86400, description="unwiredlabs: seconds that a place is remembered")
        ] = 86400
        cache_time_nothing: Annotated[
            int, Meta(ge=0, le=86400, description="unwiredlabs: seconds until an unknown place is asked for again")
        ] = 600
        ca_file: CaFile = ""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        bounds = Bounds(seconds=config.cache_time, nothing_seconds=config.cache_time_nothing, rate=config.rate)
        self._lookups = Lookups(self._ask, bounds)
        self._client = WebClient(timeout=config.timeout, ca_file=config.ca_file, answer_most=ANSWER_MOST)
        self._file = CellFile(Path(config.file), config.cells_most, config.countries)

    @classmethod
    def check(cls, config: Config) -> None:
        """What the provider needs."""
        needed = "token" if config.provider == "unwiredlabs" else "file"
        if not getattr(config, needed):
            raise ItemError(f"provider {config.provider} needs {needed}", f"configuration.{needed}")
        if "\0" in config.file:
            raise ItemError("file should be a path", "configuration.file")
        check_uri(config.uri)

    async def open(self) -> None:
        """Begin to read the file; or see that the certificates are there."""
        if self.config.provider == "csv":
            self._file.open()
        else:
            await self._client.open()

    async def close(self) -> None:
        """Forget the cells; what is under way has its answer first."""
        await self._file.close()
        await self._client.close()

    async def process_many(self, messages: Sequence[Message], context: Context) -> Sequence[Message | None]:
        """Those without a position have one, where it is known."""
        asking = {index: around for index, message in enumerate(messages) if (around := self._question(message))}
        if not asking:
            return messages
        if self.config.provider == "csv":
            table = await self._file.table(self.config.timeout)
            places = {index: _from(table, around) for index, around in asking.items()}
        else:
            batch = Batch(self._lookups, self.config.wait, self.name)
            places = {index: await batch.find(around) for index, around in asking.items()}
            batch.end()
        for index, place in places.items():
            if place is not None:
                _set(messages[index], place, asking[index])
        return messages

    def _question(self, message: Message) -> Heard | None:
        is_wanted = not msg.has_coordinates(message) or (
            self.config.when == "invalid" and message.get("position.valid") is False
        )
        around = heard(message) if is_wanted else Heard()
        return around if around.cells or (around.points and self.config.provider != "csv") else None

    async def _ask(self, around: Heard) -> Place | None:
        headers = {"content-type": "application/json"}
        content = unwired.body(self.config.token, around)
        return unwired.place(await self._client.request("POST", self.config.uri, content=content, headers=headers))


def _from(table: CellTable, around: Heard) -> Place | None:
    """Of the serving cell; where it is not known, of the first neighbor that is."""
    places = (table.find(cell.mcc, cell.mnc, cell.lac, cell.cid) for cell in around.cells)
    return next((place for place in places if place is not None), None)


def _set(message: Message, place: Place, around: Heard) -> None:
    message |= {
        msg.LATITUDE: place.latitude,
        msg.LONGITUDE: place.longitude,
        "position.valid": True,
        "position.source": "wifi" if around.points else "lbs",
    }
    message.pop("position.skipped", None)
    message.pop("position.accuracy", None)
    if place.range:
        message["position.accuracy"] = place.range
