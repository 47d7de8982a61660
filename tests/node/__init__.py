"""Tests of the program that was written from docs/envelope.md alone."""
