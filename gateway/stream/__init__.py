"""Streams: messages to other systems, each stream from a place of its own in the logs.

To read: ``target`` (what a type is), ``protocols`` (where types are found), ``selection`` (which messages are for a
stream, and in which form), ``queue`` (the next ones, read from the logs), ``sender`` (one stream: batches, repetition,
giving up), ``streams`` (all of them, as the items say). The types are the files in ``gateway/streams/``.
"""

from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo, Target

__all__ = ["Options", "Outgoing", "Rejection", "StreamInfo", "Target"]
