"""Whole lives of notices: a model of them, written from the documents alone, against the real judge, step and route."""
