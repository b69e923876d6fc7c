"""The REST API, flespi's.

Reading order: ``errors`` (what a client is told), ``operations`` (the table of all operations), ``http``, ``request``
and ``call`` (from HTTP to what a handler sees), ``answers`` (what it gives back), ``site``, ``outlet`` and ``server``,
``selectors`` and ``fields`` (which items, and what of them), ``openapi``; then a module per noun, which
``nouns`` puts together.
"""
