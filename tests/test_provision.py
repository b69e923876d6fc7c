"""The configuration file against what the API did: a change of either counts, and none is undone by a restart."""

from __future__ import annotations

import attrs
import pytest

from gateway import provision
from gateway.settings import ChannelSection, DeviceSection, LimitsSection, Settings
from gateway.store import keys
from gateway.store.items import Items

SECTION = ChannelSection(name="a", listen=["tcp:1"])
DEVICE = DeviceSection(ident="1", name="Van", type="FMB204")


@pytest.fixture
def restart(redis):
    """Items as a new process has them, after it has read the file."""

    async def start(*channels: ChannelSection, devices: tuple[DeviceSection, ...] = ()) -> Items:
        items = Items(redis)
        await items.load()
        await provision.apply_channels(items, channels)
        await provision.apply_devices(items, Settings(devices=list(devices)))
        return items

    return start


def test_a_channel_that_was_renamed_is_the_same_one(run, restart):
    """A second one on its ports would keep the gateway from starting."""

    async def scenario() -> None:
        items = await restart(SECTION)
        await items.change_channel(1, lambda channel: attrs.evolve(channel, name="renamed", metadata={"mine": 1}))
        items = await restart(SECTION)
        [channel] = items.channels.values()
        assert (channel.name, channel.enabled, channel.metadata) == ("renamed", True, {"mine": 1})
        items = await restart(attrs.evolve(SECTION, listen=["tcp:2"]))
        assert [(one.name, one.listen) for one in items.channels.values()] == [("renamed", ["tcp:2"])]

    run(scenario())


def test_what_was_deleted_stays_deleted_until_its_section_changes(run, restart):
    """Channels and devices; afterwards it is made anew, and once."""

    async def scenario() -> None:
        items = await restart(SECTION, devices=(DEVICE,))
        await items.delete_channel(1)
        await items.delete_device(1)
        for _ in range(2):
            items = await restart(SECTION, devices=(DEVICE,))
            assert (items.channels, items.devices) == ({}, {})
        changed = (attrs.evolve(SECTION, messages_ttl=5), attrs.evolve(DEVICE, name="Other"))
        for _ in range(2):
            items = await restart(changed[0], devices=(changed[1],))
            assert (list(items.channels), list(items.devices)) == ([2], [2])
        items = await restart(SECTION, devices=(DEVICE,))
        assert items.channels[2].messages_ttl == SECTION.messages_ttl
        assert items.devices[2].name == "Van"

    run(scenario())


def test_a_device_that_registered_itself_and_was_deleted_may_be_configured_later(run, restart):
    """The file never said anything of it before."""

    async def scenario() -> None:
        items = await restart()
        await items.register_device(ident="1", name="1", protocol_id=14, device_type_id=10000)
        await items.delete_device(1)
        items = await restart(devices=(DEVICE,))
        assert [device.name for device in items.devices.values()] == ["Van"]

    run(scenario())


def test_what_the_first_version_stored_counts_as_said(run, redis, restart):
    """It kept it in the metadata, without the name."""

    async def scenario() -> None:
        said = b'{"enabled":true,"listen":["tcp:1"],"unknown_ident":"accept","messages_ttl":86400}'
        text = (
            b'{"id":1,"name":"a","protocol_id":14,"messages_ttl":5,"configuration":{"listen":["tcp:7"]},'
            b'"metadata":{"configured":' + said + b"}}"
        )
        await redis.hset(keys.items("channels"), "1", text)
        await redis.hset(keys.NEXT_IDS, "channels", 1)
        items = await restart(SECTION)
        [channel] = items.channels.values()
        assert (channel.messages_ttl, channel.listen, channel.metadata) == (5, ["tcp:7"], {})
        items = await restart(attrs.evolve(SECTION, name="b"))
        assert [(one.name, one.enabled) for one in items.channels.values()] == [("a", False), ("b", True)]

    run(scenario())


def test_a_lifetime_that_the_api_gave_outlives_a_new_default(run, redis):
    """Also one that happens to be the default of then."""

    async def scenario() -> None:
        items = Items(redis, device_messages_ttl=1000)
        values = {"protocol_id": 14, "device_type_id": 10000}
        await items.create_device(ident="1", name="by default", **values)
        await items.create_device(ident="2", name="said so", messages_ttl=1000, **values)
        await provision.apply_devices(items, Settings(limits=LimitsSection(device_messages_ttl=2000)))
        assert [device.messages_ttl for device in items.devices.values()] == [2000, 1000]

    run(scenario())
