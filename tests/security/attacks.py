"""All hostile files, by name."""

from tests.security import attacks_archive, attacks_foreign, attacks_values
from tests.security.corpus import ALL, ATTACKS, Attack

__all__ = ["ALL", "ATTACKS", "Attack", "attacks_archive", "attacks_foreign", "attacks_values"]
