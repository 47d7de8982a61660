"""What an auditor runs: one file for each command of `valise audit`."""
