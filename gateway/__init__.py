"""A self-hosted telematics gateway: GPS trackers in, messages out.

Reading order: ``protocols/teltonika`` (bytes to messages), ``channel`` (bytes meet a transport), ``store/log`` (where
a message becomes durable), ``registrar`` (what a device makes of it), ``mqtt/publisher`` (fan-out), ``service``
(assembly).
"""

__version__ = "0.1.0"
