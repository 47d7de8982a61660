"""Witnesses: what they cosign, what the operator makes of it, what an auditor demands."""
