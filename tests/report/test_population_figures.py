import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from everlearn.population.lineage import ancestry
from everlearn.population.population import Population
from everlearn.population.space import HyperparamConfig
from everlearn.report.lineage_figures import draw_lineage
from everlearn.report.population_figures import draw_schedules, draw_scores
from everlearn.report.population_timeline import timeline_of, winning_schedule
from everlearn.testing.populations import RATE
from tests.report.toy_populations import SPACE, rules, trained

DRAW = [draw_lineage, draw_schedules, draw_scores]


@pytest.fixture(scope="module")
def population(tmp_path_factory) -> Population:
    directory = tmp_path_factory.mktemp("population")
    return trained(directory, rules(8), 12, {"1:0": "raise", "5:3": "raise", "0:2": "nan"}).population


def test_a_segment_takes_as_long_for_those_that_fail(population: Population) -> None:
    spans = [span for span in timeline_of(population).spans if span.member_id == 5]
    assert [(span.start, span.end) for span in spans] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12)]
    assert [span.failed for span in spans] == [False, False, False, True, False, False]
    assert population.ledger.member(5).step == 10


def test_a_segment_without_a_score_has_not_failed(population: Population) -> None:
    span = next(span for span in timeline_of(population).spans if (span.member_id, span.start) == (0, 4))
    assert (span.score, span.failed) == (None, False)


def test_the_spans_have_the_scores_and_hyperparameters_that_members_reported(population: Population) -> None:
    for member in population.members:
        spans = [span for span in timeline_of(population).spans if span.member_id == member.member_id]
        reported = [report.performance for report in member.history]
        finite = [None if each is None or not math.isfinite(each) else each for each in reported]
        assert [span.score for span in spans] == finite
        assert spans[-1].hyperparams == member.hyperparams


def test_the_line_of_descent_ends_with_the_winner_and_is_without_gaps(population: Population) -> None:
    timeline = timeline_of(population)
    stays = timeline.descent
    assert (stays[-1].member_id, stays[-1].end, stays[0].start) == (timeline.winner, 12, 0)
    assert [stay.end for stay in stays[:-1]] == [stay.start for stay in stays[1:]]
    assert timeline.winner is not None
    exploits = ancestry(population.ledger.events, timeline.winner)
    assert [stay.member_id for stay in stays] == [exploits[0].source_id, *(event.member_id for event in exploits)]
    own = {(exploit.member_id, exploit.at) for exploit in timeline.exploits}
    assert timeline.line <= own


def test_the_winning_schedule_is_as_long_as_the_training(population: Population) -> None:
    winner = timeline_of(population).winner
    assert winner is not None
    schedule = winning_schedule(population, winner)
    assert (schedule[0][0], schedule[-1][1]) == (0, 12)
    assert [end for _, end, _ in schedule[:-1]] == [start for start, _, _ in schedule[1:]]
    assert schedule[-1][2] == population.ledger.member(winner).hyperparams


def test_with_a_burn_in_generations_are_still_where_they_were(tmp_path: Path) -> None:
    population = trained(tmp_path, rules(burn_in=8), 12, {"1:0": "raise"}).population
    timeline = timeline_of(population)
    assert min(exploit.at for exploit in timeline.exploits if exploit.member_id != 1) == 8
    assert {span.end for span in timeline.spans} == {2, 4, 6, 8, 10, 12}


def test_a_generation_that_was_trained_again_counts_once(tmp_path: Path) -> None:
    everybody = {"0:1": "raise", "1:1": "raise"}
    with pytest.raises(Exception, match="All members have failed"):
        trained(tmp_path, rules(2), 6, everybody)
    population = trained(tmp_path, rules(2), 6).population
    spans = timeline_of(population).spans
    assert [(span.member_id, span.start) for span in spans] == [(0, 0), (0, 2), (0, 4), (1, 0), (1, 2), (1, 4)]
    assert not any(span.failed for span in spans)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("draw", DRAW)
def test_pictures_are_drawn_and_the_same_for_the_same_population(draw, population, tmp_path: Path) -> None:
    draw(tmp_path / "one.png", population)
    draw(tmp_path / "two.png", population)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert {each.name for each in tmp_path.iterdir()} == {"one.png", "two.png"}
    assert (pixels(tmp_path / "one.png") == (0xD5, 0x5E, 0x00)).all(axis=2).any()  # the winner's colour


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize(
    ("size", "updates", "misfortunes"),
    [
        (1, 6, {}),
        (4, 2, {}),
        (2, 4, {f"{member}:{generation}": "nan" for member in range(2) for generation in range(2)}),
    ],
    ids=["one member", "one generation", "no scores"],
)
def test_pictures_of_little_can_be_drawn(draw, size: int, updates: int, misfortunes, tmp_path: Path) -> None:
    population = trained(tmp_path / "population", rules(size), updates, misfortunes).population
    draw(tmp_path / "picture.png", population)
    assert pixels(tmp_path / "picture.png").std() > 0


@pytest.mark.parametrize("draw", DRAW)
def test_pictures_of_what_has_not_begun_can_be_drawn(draw, tmp_path: Path) -> None:
    population = trained(tmp_path / "population", rules(3), 4, stopped=lambda: True).population
    draw(tmp_path / "picture.png", population)
    assert pixels(tmp_path / "picture.png").std() > 0


def test_hyperparameters_of_every_kind_have_a_panel(tmp_path: Path) -> None:
    kinds = (
        HyperparamConfig("vf_coef", 0.1, 1.0),
        HyperparamConfig("gae_lambda", 0.1, 0.99, scale="logit"),
        HyperparamConfig("n_epochs", 1, 20),
        HyperparamConfig("normalize_advantage", values=(True, False)),
        HyperparamConfig("kl.mode", values=("a name that is so long that it would fill the panel", "_$short$", None)),
    )
    config = rules(3, hyperparams=(RATE, *SPACE[1:], *kinds))
    draw_schedules(tmp_path / "picture.png", trained(tmp_path / "population", config, 4).population)
    assert pixels(tmp_path / "picture.png").std() > 0
