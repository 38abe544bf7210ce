"""Tools for those who develop everlearn: the table of laws and tests, and the mutation check."""
