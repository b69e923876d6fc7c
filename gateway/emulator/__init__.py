"""Virtual trackers: something to try the gateway with where no hardware is.

Reading order: ``group`` and ``scenario`` (what a user asks for); ``route``, ``route_files``, ``plan``, ``condition``
and ``vehicle`` (what drives); ``sample``, ``io``, ``ble`` and ``recorder`` (what a tracker notes of it);
``packets``, ``memory`` and ``device`` (the protocol without I/O); ``surroundings``, ``link``, ``tracker`` and ``fleet``
(asyncio); ``options``, ``run``, ``workers`` and ``__main__`` (the command). Beside these: ``capture`` (the same again),
``tape``, ``storm`` and ``load`` (many).
"""
