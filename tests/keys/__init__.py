"""The life of a key: made, kept, entered, taken over from, revoked."""
