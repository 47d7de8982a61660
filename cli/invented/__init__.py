"""The invented world: names, places and words; no person in it exists."""
