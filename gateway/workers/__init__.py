"""Worker processes: they take connections of trackers beside the gateway's first process, on the same ports.

A worker does what costs most: TLS, sessions, decoding, normalizing. What must be done by one alone stays in the first
process: whether an ident is welcome, ``server.timestamp``, storing, whose connection counts, commands, the logs.

To read: ``wire`` (what they say to each other), ``pipe`` (how), ``remote`` (a worker's connection as the first process
knows it), ``crew`` (all workers, in the first process), ``front`` (a worker's channels), ``__main__`` (its process).
"""
