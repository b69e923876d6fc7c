"""The gateway as a process among real ones: Redis, Mosquitto, trackers, and whoever kills them.

Reading order: ``processes`` (start, wait, kill), ``trackers`` (what sends), ``stored`` (what Redis has in the end).
"""
