"""Tests that need real Kafka nodes, or the certificates and jars that those run on."""
