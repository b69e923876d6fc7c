"""Expressions: flespi's language of filters, selectors and computed values."""
