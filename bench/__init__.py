"""The benchmarks: ``python -m bench [part ...]`` runs them, prints a table and writes ``bench/results.json``.

Each part is one module with ``def run() -> list[Row]``; ``rows.py`` says what a row is. ``load.py`` (trackers) and
``subscriber.py`` (MQTT) are programs of their own, so that what they cost is not charged to what they measure.
"""
