"""Teltonika's protocols, from bytes to messages. Read in this order:

``frame``, ``wire``, ``wire_commands`` (the bytes, declared with ``bulk``, parsed and built through ``border``),
``session`` (one TCP connection) and ``datagram`` (UDP), then ``normalize`` (records to messages) and what it uses.
"""
