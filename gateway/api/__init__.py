"""The REST API, flespi's.

Reading order: ``errors`` (what a client is told), ``operations`` (the table of all operations), ``call`` (one request as
its handler sees it), ``answers`` (what a handler gives back), ``site`` (HTTP), ``openapi``; then a module per noun.
"""
