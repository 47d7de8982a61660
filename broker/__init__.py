"""What the operator runs, and what both sides share."""
