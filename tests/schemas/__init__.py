"""Tests of the schema files and of the rule that keeps them readable."""
