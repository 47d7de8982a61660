"""Drafts of the federation's metadata: who makes, signs and activates them."""
