"""Processes killed at every commented crash point, on both buses: nothing is lost, nothing is routed twice."""
