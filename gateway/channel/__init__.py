"""The only place where trackers' bytes meet a transport.

Reading order: ``intake`` (from a packet to the log), ``connection`` and ``connections`` (TCP and TLS), ``datagrams``
(UDP), ``channels`` (what listens where, and the end of it), ``server`` (from an endpoint string to a port), ``tls`` and
``certificates``, ``proxy`` and ``proxy_header``.
"""
