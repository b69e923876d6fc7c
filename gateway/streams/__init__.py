"""Types of streams, one file per type: ``http.py`` is protocol ``http``. What they share is in ``gateway.stream``."""
