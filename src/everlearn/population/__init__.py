"""Population based training: records, strategies and a scheduler that decide, and know no reinforcement learning.

To add a strategy, write an ``ExploitStrategy`` or an ``ExploreStrategy`` in one file and register it.
"""

from everlearn.population.exploit import ExploitStrategy, exploits
from everlearn.population.explore import ExploreStrategy, explores
from everlearn.population.pb2 import PB2
from everlearn.population.scales import Scale, scales

__all__ = ["PB2", "ExploitStrategy", "ExploreStrategy", "Scale", "exploits", "explores", "scales"]
