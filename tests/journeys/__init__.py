"""Whole ways, from command to command."""
