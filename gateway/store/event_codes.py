"""What the event log says: flespi's numbers of events and of reasons for closing a connection (its page "Logs")."""

from __future__ import annotations

from enum import IntEnum

ORIGIN_TYPES = {"channels": 9, "devices": 11, "streams": 12, "plugins": 25, "tokens": 33}
"""flespi's number of each kind of item: the ``origin_type`` of an entry."""


class EventCode(IntEnum):
    """What happened: the ``event_code`` of an entry."""

    CREATED = 1
    UPDATED = 2
    DELETED = 3
    BLOCKED = 20
    UNBLOCKED = 21
    CONNECTION_ACCEPTED = 100
    CONNECTION_IDENTIFIED = 101
    CONNECTION_CLOSED = 102
    DATA_ERROR = 103
    CONFIGURATION_INVALID = 114
    DEVICE_CONNECTED = 300
    DEVICE_DISCONNECTED = 301
    PROCESSING_ERROR = 304
    PROCESSING_WARNING = 305
    SETTING_RECEIVED = 310
    SETTING_PENDING = 311
    SETTING_APPLIED = 312
    SETTING_REJECTED = 313
    SETTING_CANCELLED = 314
    SETTING_CLEARED = 315
    SETTING_UNREADABLE = 316
    SETTING_REQUESTED = 317
    PLUGIN_ACTIVATED = 320
    PLUGIN_DEACTIVATED = 321
    COMMAND_QUEUED = 330
    COMMAND_REMOVED = 331
    COMMAND_PROCESSED = 332
    COMMAND_EXPIRED = 333
    COMMAND_SENT = 334
    PLUGIN_STATUS = 350
    PLUGIN_ERROR = 351
    STREAM_CONNECTED = 401
    STREAM_LOST = 402
    STREAM_FAILED = 403
    STREAM_SENT = 404
    STREAM_RECOVERED = 405
    STREAM_REJECTED = 406
    DEVICE_SUBSCRIBED = 420
    DEVICE_UNSUBSCRIBED = 422
    CHANNEL_SUBSCRIBED = 430
    CHANNEL_UNSUBSCRIBED = 432
    TOKEN_EXPIRED = 600
    REST_REQUEST = 1000


class CloseCode(IntEnum):
    """Why a connection ended: the ``close_code`` of an entry."""

    UNEXPECTED = -1
    BY_DEVICE = 2
    OK = 3
    PROTOCOL_VIOLATION = 4
    INTERNAL_ERROR = 5
    SERVER_RESTART = 7
    CHANNEL_CHANGED = 9
    USER_REQUEST = 10
    IDENT_COLLISION = 12
    NOT_AUTHENTICATED = 14
    """Also an ident that is rejected."""
    DEVICE_CHANGED = 15
    """Created, changed or deleted."""
    INACTIVITY = 17
    CHANNEL_BLOCKED = 21
    """Also a limit on connections."""
    DEVICE_DISABLED = 23


DESCRIPTIONS: dict[EventCode, tuple[str, str]] = {
    EventCode.CREATED: ("created", "Item created"),
    EventCode.UPDATED: ("updated", "Item updated"),
    EventCode.DELETED: ("deleted", "Item deleted"),
    EventCode.BLOCKED: ("blocked", "Item blocked"),
    EventCode.UNBLOCKED: ("unblocked", "Item unblocked"),
    EventCode.CONNECTION_ACCEPTED: ("accepted", "Connection accepted"),
    EventCode.CONNECTION_IDENTIFIED: ("identified", "Connection identified"),
    EventCode.CONNECTION_CLOSED: ("closed", "Connection closed"),
    EventCode.DATA_ERROR: ("data_error", "Data of a connection could not be taken"),
    EventCode.CONFIGURATION_INVALID: ("configuration_invalid", "Configuration cannot be used"),
    EventCode.DEVICE_CONNECTED: ("connected", "Device connected"),
    EventCode.DEVICE_DISCONNECTED: ("disconnected", "Device disconnected"),
    EventCode.PROCESSING_ERROR: ("processing_error", "Data of the device could not be processed"),
    EventCode.PROCESSING_WARNING: ("processing_warning", "Invalid parameters were removed from a message"),
    EventCode.SETTING_RECEIVED: ("setting_received", "The device told what a setting is"),
    EventCode.SETTING_PENDING: ("setting_pending", "A setting shall be changed"),
    EventCode.SETTING_APPLIED: ("setting_applied", "The device has taken a setting"),
    EventCode.SETTING_REJECTED: ("setting_rejected", "The device has not taken a setting"),
    EventCode.SETTING_CANCELLED: ("setting_cancelled", "A setting shall not be changed any longer"),
    EventCode.SETTING_CLEARED: ("setting_cleared", "What is known of a setting is forgotten"),
    EventCode.SETTING_UNREADABLE: ("setting_unreadable", "The device does not tell a setting"),
    EventCode.SETTING_REQUESTED: ("setting_requested", "The device is asked for a setting"),
    EventCode.PLUGIN_ACTIVATED: ("plugin_activated", "Plugin activated for the device"),
    EventCode.PLUGIN_DEACTIVATED: ("plugin_deactivated", "Plugin deactivated for the device"),
    EventCode.COMMAND_QUEUED: ("command_queued", "Command queued"),
    EventCode.COMMAND_REMOVED: ("command_removed", "Command removed from the queue"),
    EventCode.COMMAND_PROCESSED: ("command_processed", "Command processed by the device"),
    EventCode.COMMAND_EXPIRED: ("command_expired", "Command expired"),
    EventCode.COMMAND_SENT: ("command_sent", "Command sent to the device"),
    EventCode.PLUGIN_STATUS: ("plugin_status", "Plugin: processing status"),
    EventCode.PLUGIN_ERROR: ("plugin_error", "Plugin: processing error"),
    EventCode.STREAM_CONNECTED: ("connected", "Stream connected to its target"),
    EventCode.STREAM_LOST: ("lost", "Stream lost its connection"),
    EventCode.STREAM_FAILED: ("failed", "Stream could not deliver"),
    EventCode.STREAM_SENT: ("sent", "Stream delivered"),
    EventCode.STREAM_RECOVERED: ("ok", "Stream delivers again"),
    EventCode.STREAM_REJECTED: ("rejected", "Messages of the stream were rejected by its target, or given up"),
    EventCode.DEVICE_SUBSCRIBED: ("device_subscribed", "Stream subscribed to a device"),
    EventCode.DEVICE_UNSUBSCRIBED: ("device_unsubscribed", "Stream unsubscribed from a device"),
    EventCode.CHANNEL_SUBSCRIBED: ("channel_subscribed", "Stream subscribed to a channel"),
    EventCode.CHANNEL_UNSUBSCRIBED: ("channel_unsubscribed", "Stream unsubscribed from a channel"),
    EventCode.TOKEN_EXPIRED: ("expired", "Token expired"),
    EventCode.REST_REQUEST: ("request", "REST request"),
}
"""Event -> the last level of its MQTT topic, and what it means."""


CLOSE_REASONS: dict[CloseCode, str] = {
    CloseCode.UNEXPECTED: "the connection broke",
    CloseCode.BY_DEVICE: "closed by the device",
    CloseCode.OK: "closed in order",
    CloseCode.PROTOCOL_VIOLATION: "violation of the protocol",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.SERVER_RESTART: "the gateway stops",
    CloseCode.CHANNEL_CHANGED: "the channel was changed",
    CloseCode.USER_REQUEST: "closed by the user",
    CloseCode.IDENT_COLLISION: "a newer connection of the same ident",
    CloseCode.NOT_AUTHENTICATED: "the ident was rejected",
    CloseCode.DEVICE_CHANGED: "the device was created, changed or deleted",
    CloseCode.INACTIVITY: "silent for too long",
    CloseCode.CHANNEL_BLOCKED: "the channel takes no connection",
    CloseCode.DEVICE_DISABLED: "the device is disabled",
}
