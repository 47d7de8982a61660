"""The policy set of the first federation."""
