"""A runner that prints."""

from collections.abc import Sequence

from everlearn.population.executors import Beat
from everlearn.population.segments import Result, Task
from everlearn.testing.toy_runner import ToyRunner


class Talkative(ToyRunner):
    """Prints of which member it trains."""

    def run(self, tasks: Sequence[Task], beat: Beat) -> list[Result]:
        for task in tasks:
            print(f"a word of member {task.member_id}", flush=True)
        return super().run(tasks, beat)
