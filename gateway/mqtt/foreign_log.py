"""What libraries write to Python's ``logging`` goes to our log, tamed.

To amqtt a client that sends nonsense is an error with a traceback; to us it is one line, and repeated ones are counted.
"""

from __future__ import annotations

import logging

from twisted.logger import Logger

from gateway import metrics

LOGGERS = ("amqtt", "transitions", "websockets")
LOG_EVERY = 1000


class _Forward(logging.Handler):
    """First and every Nth record of each place in the code, as info."""

    log = Logger(namespace="gateway.mqtt.broker")

    def emit(self, record: logging.LogRecord) -> None:
        place = f"{record.module}:{record.lineno}"
        n = metrics.count("mqtt_broker_warnings", place=place)
        if n == 1 or n % LOG_EVERY == 0:
            error = record.exc_info[1] if record.exc_info else None
            self.log.info("{name}: {text} ({n} so far)", name=record.name, text=_text(record, error), n=n)


def _text(record: logging.LogRecord, error: BaseException | None) -> str:
    text = record.getMessage()
    return f"{text}: {error!r}" if error is not None else text


def forward_logging() -> None:
    """Send warnings of :data:`LOGGERS` to our log, and nothing to standard error."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        if not any(isinstance(handler, _Forward) for handler in logger.handlers):
            logger.addHandler(_Forward())
