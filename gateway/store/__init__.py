"""Everything that talks to Redis.

Reading order: ``keys`` (names), ``connection`` (errors), ``embedded`` (a server of our own), ``lease`` (one writer),
``gate`` (back-pressure), ``log`` (group commit), ``reader`` (cursors), ``trim``, ``messages`` and ``telemetry`` of
devices, ``items``.
"""
