"""Conformance suites: the laws of each family of components, as pytest classes that new members subclass."""
