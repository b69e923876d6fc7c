"""What trackers answer to commands, taken apart. What does not have the expected form is left as text: None.

Forms seen in Teltonika's documents (pages Codec, getparam, setparam; manuals of FM1100, FM3622, FMB630) and, for the
second form of several parameters, in what a public client expects of devices::

    getparam    Param ID:2004 Val:host          Param ID:2004 Val:host;Param ID:2005 Val:5027
                Param ID:1000 Value:300         Param ID:1000 Value:300;10000:60
                Param ID 0242 Val: host
    setparam    New value 2004:host;2005:5027   Param ID:1245 New Text:host   Param ID:5 New Val:1
    getver      Ver:03.18.14_04 GPS:AXN_5.10_3333 Hw:FMB120 Mod:15 IMEI:352093081452251 Init:2018-11-22 7:13 ...
    getio       DI1:1 DI2:0 DI3:0 AIN1:0 AIN2:16924 DO1:0 DO2:1
    getstatus   Data Link: 1 GPRS: 1 Phone: 0 ...
    readio      I/O ID:3 Value:0

Values stay text, as they were sent: an IMEI begins with 0 now and then, and a MAC address may look like a number.
"""

from __future__ import annotations

import re

KEYS_OF_WORDS = (
    "Data Link", "Cell ID", "Code Ver", "Device IMEI", "Device ID", "Modem App Ver", "Modem APP Ver", "Bootloader Ver",
)  # fmt: skip
"""Keys with spaces; in all others a space ends the value before."""

LONGEST = 4096
"""Characters of a reply that are looked at: three times what the greatest known frame has room for."""

_KEY = re.compile(rf"(?:^|(?<=\s))({'|'.join(KEYS_OF_WORDS)}|[A-Za-z][\w/]*):", re.ASCII)
_LONG = re.compile(r"Param ID[: ]\s*(?P<id>\d{1,6}) (?:New )?(?:Value|Val|Text): ?(?P<value>.*)", re.S)
_SHORT = re.compile(r"(?P<id>\d{1,6}):(?P<value>.*)", re.S)
_NEW = "New value"
_IO = re.compile(r"(?:I/?O )?ID:\s*(?P<id>\d+)\s+Value:\s*(?P<value>\S+)")


def parameters_of(text: str) -> dict[str, str] | None:
    """Parameter id -> value, of the reply to getparam or setparam."""
    if len(text) > LONGEST:
        return None
    found: dict[str, str] = {}
    last = ""
    for part in text.strip().removeprefix(_NEW).lstrip(": ").split(";"):
        match = _LONG.fullmatch(part.strip(" \r\n")) or _SHORT.fullmatch(part.strip(" \r\n"))
        if match is not None:
            last = str(int(match["id"]))
            found[last] = match["value"].strip()
        elif part.strip() and not last:
            return None
        elif part.strip():
            found[last] += f";{part}"  # a value that has a semicolon itself
    return found or None


def pairs_of(text: str) -> dict[str, str] | None:
    """Key -> value, of replies like ``GPS:1 Sat:7``. A key that is there twice keeps its first value.

    One key alone is none: ``WARNING: no such command`` is a sentence.
    """
    keys = list(_KEY.finditer(text.strip())) if len(text) <= LONGEST else []
    if len(keys) < 2 or keys[0].start() != 0:
        return None
    ends = [*(key.start() for key in keys[1:]), len(text.strip())]
    found: dict[str, str] = {}
    for key, end in zip(keys, ends, strict=True):
        found.setdefault(key[1], text.strip()[key.end() : end].strip())
    return found


def io_of(text: str) -> dict[str, str] | None:
    """AVL id -> value, of the reply to readio."""
    match = _IO.fullmatch(text.strip())
    return {match["id"]: match["value"]} if match is not None else None
