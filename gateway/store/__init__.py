"""Everything that talks to Redis.

Reading order: ``keys`` (names), ``connection`` (errors), ``embedded`` (a server of our own), ``lease`` (one writer),
``gate`` (back-pressure), ``log`` (group commit), ``reader`` (cursors), ``items``, ``changes`` (what messages change for
a device), ``messages`` and ``telemetry`` of devices, ``posted`` (what comes by the API), ``history`` (stored messages,
with ``ordered``, ``sources`` and ``hidden``), ``polls``, ``trim``.
"""
