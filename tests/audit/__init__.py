"""The auditor's tools: each claim, and what is refused."""
