"""One package per vendor's language. Nothing below here knows Twisted, the clock or Redis."""
