"""Tests of single steps: bytes and values in, values out."""
