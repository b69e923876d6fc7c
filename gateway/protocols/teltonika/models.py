"""The model that a tracker says it is, from its answer to the command ``getver``.

Forms of the answer in Teltonika's documents (wiki, pages "FMB getver", "SMS/GPRS command - getver" and "FMA getver";
page Codec, example of Codec 14)::

    FMB, AT, TFT    Ver:03.18.14_04 GPS:AXN_5.10_3333 Hw:FMB120 Mod:15 IMEI:352093081452251 Init:2018-11-22 7:13 ...
    FT              Ver:0.23.0-rc.1 GPS:AG3335A_V2.6.0 Hw:FTC961 Mod:1 Pos:43 IMEI:866344054201822 Init:2023-05-11 ...
    FM11, FM36      Code Ver:01.06.15 Rev:1 Device IMEI:353976010139156 Device ID:000001 Bootloader Ver: 01.09 ...

The last form names no model: its "Device ID" is a kind of configuration. FMX6 answers like it, at times with an
``Hw:`` that is the modem's (seen in public code, not documented). That some firmware writes ``Device:`` before
the model is remembered, not documented.
"""

from __future__ import annotations

import re

from gateway.protocols.teltonika.avl_ids import find_model

LONGEST_ANSWER = 1024
"""An answer that has not told its model by then, in characters, never does."""

_HARDWARE = re.compile(r"(?<!\w)(?:Hw|Device):\s*([A-Za-z0-9][A-Za-z0-9-]*)", re.ASCII)


def model_from_getver(text: str) -> str | None:
    """The model that ``text``, an answer to ``getver``, names, as the device types have it: ``FMB120``.

    None where it names none, or one that there is no device type of.
    """
    for hardware in _HARDWARE.findall(text[:LONGEST_ANSWER]):
        model = find_model(hardware).model
        if model:
            return model
    return None
