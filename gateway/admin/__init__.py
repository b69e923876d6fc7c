"""``python -m gateway.admin``: a gateway looked at and changed from the command line, over its REST API.

Reading order: ``options`` (what can be said), ``client`` (one request, and what can go wrong with it), ``selectors``
and ``values`` (what people write, as the API wants it), ``output`` (tables or JSON), and the commands: ``status``,
``items``, ``messages``, ``trackers``.
"""
