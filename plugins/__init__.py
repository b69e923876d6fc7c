"""Message plugins, one file per type: ``msg_erase.py`` is type ``msg-erase``. Installed as ``gateway.plugins``."""
