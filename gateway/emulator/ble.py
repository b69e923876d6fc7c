"""What a tracker hears over Bluetooth: tags in the vehicle, as AVL 385 lists them (Teltonika wiki, "Beacon list").

The layout is told in ``protocols/teltonika/beacons.py``, which reads it.
"""

from __future__ import annotations

from random import Random

_ONLY_PART = b"\x11"  # part 1 of 1
_RSSI, _BATTERY, _TEMPERATURE, _IBEACON = 0x01, 0x02, 0x04, 0x20
_UUID = bytes.fromhex("e2c56db5dffb48d2b060d0f5a71096e0")  # that of Apple's AirLocate example, on half of all tags
_NAMESPACE = bytes.fromhex("0056474d3132335445535400"[:20])


def beacon_list(tag: int, door: bool, temperature: float, random: Random) -> bytes:
    """The value of AVL 385: an iBeacon on a tool case, gone while the door is open, and an Eddystone with its sensors.

    ``tag`` tells the vehicles' tags apart (32 bits); ``temperature`` in degrees Celsius.
    """
    eddystone = (
        bytes([_RSSI | _BATTERY | _TEMPERATURE]) + _NAMESPACE + (tag >> 16).to_bytes(6, "big") + _rssi(-70, random)
    )
    eddystone += (2980).to_bytes(2, "big") + round(temperature).to_bytes(2, "big", signed=True)
    if door:
        return _ONLY_PART + eddystone
    return _ONLY_PART + bytes([_RSSI | _IBEACON]) + _UUID + tag.to_bytes(4, "big") + _rssi(-62, random) + eddystone


def _rssi(usual: int, random: Random) -> bytes:
    return (usual + int(random.random() * 9) - 4).to_bytes(1, "big", signed=True)
