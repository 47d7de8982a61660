"""Tests of threshold signatures over directory and policies."""
