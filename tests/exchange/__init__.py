"""The way of a notice through the broker."""
