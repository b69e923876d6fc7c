"""MQTT fan-out: what the logs hold becomes messages on topics.

Reading order: ``topics`` (names), ``packets`` (bytes), ``connection`` (paho over a Twisted transport), ``link`` (the
window of an accepted connection), ``client`` (connects again and again), then what runs over it: ``publisher`` (logs),
``telemetry`` and ``properties`` (retained topics). ``broker`` and ``visitors`` are the embedded broker.
"""
