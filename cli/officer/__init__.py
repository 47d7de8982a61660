"""What a policy officer does: list, check, explain, compare and activate policies."""
