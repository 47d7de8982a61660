"""The `valise` command: opens homes and buses and hands them to the loops."""
