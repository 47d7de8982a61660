"""The Avro schemas of everything that travels, versioned."""
