"""The Cedar policy set of the first federation and its cases."""
