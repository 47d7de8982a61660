"""What a member runs: outbox, collector, and one file for each national system."""
