"""Tests of the adapters on invented files of the shape of the real ones."""
