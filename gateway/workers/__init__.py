"""Worker processes: they take connections of trackers beside the gateway's first process, on the same ports.

A worker does what costs most: TLS, sessions, decoding, normalizing. What must be done by one alone stays in the first
process: whether an ident is welcome, ``server.timestamp``, storing, whose connection counts, commands, the logs.

To read: ``wire`` (what they say to each other), ``pipe`` (how). In the first process: ``remote`` (a worker's connection
as it is known there), ``desk`` (one worker as it is served), ``crew`` (all of them). In a worker: ``asking``,
``ordered`` and ``telling`` (what its channels ask, are ordered and tell), ``front`` (the channels), ``worker`` and
``__main__`` (the process). ``sharing``: ports that several processes listen on.
"""
