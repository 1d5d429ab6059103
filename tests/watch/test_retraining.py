"""What is decided about adapters, the base model and a challenger, as pure functions of what is known."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from hallmark.build import build
from hallmark.watch.never_worse import BETS, Ledger
from hallmark.watch.retraining import (
    Population,
    RetrainRule,
    Standing,
    decide,
    decide_base,
    discoveries,
    judge_base,
    judge_challenger,
)
from hallmark.watch.standing import evidence_of
from runtime.compose import compose_operation

TODAY = date(2026, 11, 27)


@pytest.fixture(scope="module")
def rule() -> RetrainRule:
    """As configured."""
    found: RetrainRule = build(compose_operation([]))["retrain"]
    return found


def standing(**changes: object) -> Standing:
    return replace(Standing("ada", new=50, before=30, days_since=5), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "not_due"),
        ({"new": 0}, "nothing_new"),
        ({"new": 0, "asked": "ada"}, "nothing_new"),
        ({"before": 0}, "insufficient_data"),
        ({"new": 100}, "new_observations"),
        ({"days_since": 7}, "schedule"),
        ({"days_since": None}, "schedule"),
        ({"stopped": True}, "stopped"),
        ({"evidence": 10.0}, "worse"),
        ({"evidence": 9.9}, "not_due"),
        ({"asked": "key:app", "stopped": True}, "requested"),
    ],
)
def test_every_reason_has_its_condition(changes: dict[str, object], why: str, rule: RetrainRule) -> None:
    [decision] = decide([standing(**changes)], rule)
    assert decision.why == why
    assert decision.refit == (why in ("requested", "stopped", "worse", "new_observations", "schedule"))


def test_at_most_the_stated_share_of_claims_is_false() -> None:
    """e-values of adapters that are as good as ever, and of some that are worse, over many fleets."""
    rng, shares, powers = np.random.default_rng(0), [], []
    for _ in range(400):
        mean = np.where(np.arange(200) < 20, 4.0, 0.0)
        z = rng.normal(mean)
        values = np.exp(3 * z - 4.5)  # likelihood ratio against a mean of 3: expectation 1 without a change
        found = discoveries({str(place): float(value) for place, value in enumerate(values)}, 0.1)
        wrong = sum(int(name) >= 20 for name in found)
        shares.append(wrong / max(len(found), 1))
        powers.append((len(found) - wrong) / 20)
    assert np.mean(shares) <= 0.1
    assert np.mean(powers) > 0.3


def test_without_evidence_nothing_is_claimed() -> None:
    assert discoveries({"a": 1.0, "b": 9.0}, 0.1) == set()
    assert discoveries({}, 0.1) == set()
    assert discoveries({"a": 21.0, "b": 10.0}, 0.1) == {"a", "b"}


def test_a_ledgers_evidence_is_an_e_value() -> None:
    """Days on which the adapter is as often better as worse: the mean over many ledgers is at most 1."""
    rng, days, found = np.random.default_rng(1), 40, []
    for _ in range(4000):
        worse = np.zeros(len(BETS))
        for _ in range(days):
            worse = (worse + 1) * (1 + BETS * rng.choice([-0.5, 0.5]))
        found.append(evidence_of(Ledger(worse=worse, uncovered=np.full(len(BETS), float(days)), days=days)))
    assert np.mean(found) <= 1 + 3 * np.std(found) / np.sqrt(len(found))


def test_a_budget_is_spent_where_most_is_expected(rule: RetrainRule) -> None:
    people = [standing(subject_id=f"p{place}", new=100, excess=place / 100) for place in range(5)]
    people.append(standing(subject_id="asked", asked="ada"))
    decisions = {d.subject_id: d for d in decide(people, replace(rule, budget_s=2.5, seconds_a_subject=1.0))}
    assert {name for name, d in decisions.items() if d.refit} == {"asked", "p4"}
    assert decisions["p3"].why == "budget"
    assert "the budget of 2.5 s is spent on 2 others that promise more" in decisions["p3"].text


MOVED = Population(TODAY - timedelta(days=10), TODAY - timedelta(days=4), True, 20.0, 22.0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "population_moved"),
        ({"moved": None}, "not_moved"),
        ({"refitted": None}, "adapters_first"),
        ({"refitted": TODAY - timedelta(days=12)}, "adapters_first"),
        ({"refitted": TODAY - timedelta(days=1)}, "adapters_first"),
        ({"lately": 20.9}, "no_loss"),
        ({"lately": None}, "unknown_loss"),
        ({"usual": None}, "unknown_loss"),
        ({"personal": False, "refitted": None}, "population_moved"),
    ],
)
def test_the_base_comes_after_the_adapters(changes: dict[str, object], why: str, rule: RetrainRule) -> None:
    decision = decide_base(replace(MOVED, **changes), rule, TODAY)  # type: ignore[arg-type]
    assert (decision.why, decision.due) == (why, why == "population_moved")


def losses(difference: float, people: int, days: int, seed: int = 0) -> pd.DataFrame:
    """Paired losses around 20, the challenger's better or worse by a share."""
    rng = np.random.default_rng(seed)
    champion = rng.gamma(4, 5, people * days)
    challenger = champion * (1 + difference + rng.normal(0, 0.05, people * days))
    names = [f"p{place:03d}" for place in range(people) for _ in range(days)]
    return pd.DataFrame({"subject_id": names, "champion": champion, "challenger": challenger})


def test_a_better_challenger_deploys_and_a_worse_one_does_not(rule: RetrainRule) -> None:
    names = [f"p{place:03d}" for place in range(50)]
    better = judge_challenger(losses(-0.1, 50, 3), names, rule)
    assert (better.deploys, better.taken_back) == (True, ())
    worse = judge_challenger(losses(0.1, 50, 3), names, rule)
    assert (worse.deploys, worse.why) == (False, "no_improvement")


def test_choosing_by_noise_is_no_improvement(rule: RetrainRule) -> None:
    """Equal models: whoever was lucky would be chosen, and the same days would show a gain."""
    deployed = [judge_challenger(losses(0.0, 50, 3, seed), [], rule) for seed in range(200)]
    assert abs(np.mean([found.difference for found in deployed])) < 0.002, (
        "an honest estimate of what choosing is worth"
    )
    naive = [chosen_by_the_same_days(losses(0.0, 50, 3, seed)) for seed in range(200)]
    assert np.mean(naive) < -0.008, "choosing and measuring by the same days is not"


def chosen_by_the_same_days(table: pd.DataFrame) -> float:
    difference = (table["challenger"] - table["champion"]) / table["champion"].mean()
    sums = difference.groupby(table["subject_id"]).transform("sum")
    return float(difference.where(sums < 0, 0.0).mean())


def test_whoever_has_no_day_is_expected_to_be_like_all(rule: RetrainRule) -> None:
    names = [f"p{place:03d}" for place in range(10)]
    better = judge_challenger(losses(-0.1, 10, 3), [*names, "none"], rule)
    assert (better.deploys, better.taken_back) == (True, ())
    assert (better.pairs, better.subjects) == (30, 10)


def test_whoever_it_is_clearly_worse_for_is_taken_back_and_one_strange_day_is_not_enough(rule: RetrainRule) -> None:
    names = [f"p{place:03d}" for place in range(30)]
    table = losses(-0.1, 30, 3)
    hurt = table["subject_id"] == "p007"
    table.loc[hurt, "challenger"] = 2 * table.loc[hurt, "champion"]
    found = judge_challenger(table, names, rule)
    assert found.deploys
    assert found.taken_back == ("p007",)
    table = losses(-0.1, 30, 3)
    place = int(table.index[table["subject_id"] == "p007"][0])
    table.loc[place, "challenger"] = 1.5 * table.loc[place, "champion"]
    assert judge_challenger(table, names, rule).taken_back == ()


def test_a_base_model_is_judged_as_a_whole(rule: RetrainRule) -> None:
    table = losses(-0.1, 30, 3)
    hurt = table["subject_id"] == "p007"
    table.loc[hurt, "challenger"] = 1.2 * table.loc[hurt, "champion"]
    found = judge_base(table, rule)
    assert (found.deploys, found.taken_back, found.pairs, found.subjects) == (True, (), 90, 30)
    assert found.difference is not None
    assert found.bound is not None
    assert found.difference < found.bound < rule.margin
    deployed = [judge_base(losses(0.05, 30, 3, seed), rule).deploys for seed in range(100)]
    assert sum(deployed) == 0
    assert judge_base(losses(-0.5, 2, 1), rule).why == "insufficient_data"
    noisy = losses(-0.001, 3, 2)
    assert not judge_base(noisy.assign(challenger=noisy["challenger"] * [0.2, 1.7, 0.3, 1.6, 1.1, 1.05]), rule).deploys


def test_too_few_days_or_a_perfect_champion_decide_nothing(rule: RetrainRule) -> None:
    assert judge_challenger(losses(-0.5, 2, 1), ["p000"], rule).why == "insufficient_data"
    assert judge_challenger(losses(-0.5, 0, 0), [], rule).why == "insufficient_data"
    none = pd.DataFrame([], columns=["subject_id", "champion", "challenger"])
    assert judge_challenger(none, ["p000"], rule).why == "insufficient_data"
    perfect = losses(-0.5, 10, 3).assign(champion=0.0)
    assert judge_challenger(perfect, [], rule).text == "the champion makes no errors"


def test_the_older_an_adapter_the_more_must_speak_against_a_fit_on_newer_observations(rule: RetrainRule) -> None:
    """Few outcomes: without what is known of age, noise decides, and an adapter may become too old to be used."""
    names = [f"p{place:03d}" for place in range(5)]

    def deployed(difference: float, age_days: int) -> float:
        gain = rule.staleness_a_day * age_days
        return float(
            np.mean(
                [judge_challenger(losses(difference, 5, 7, seed), names, rule, gain).deploys for seed in range(100)]
            )
        )

    assert deployed(0.0, 0) < 0.55
    assert deployed(0.0, 40) > 0.75
    assert deployed(0.05, 40) < 0.05, "what the held-out days say clearly is not outweighed"


def test_what_held_out_days_contradict_does_not_count(rule: RetrainRule) -> None:
    """An old champion that makes hardly any errors: the expected gain is large, and the challenger is far worse."""
    names = [f"p{place:03d}" for place in range(5)]
    gain = rule.staleness_a_day * 180
    for worse in (0.5, 17.0):
        found = [judge_challenger(losses(worse, 5, 2, seed), names, rule, gain) for seed in range(50)]
        assert not any(one.deploys for one in found)
        assert all("which these days contradict" in one.text for one in found)
    assert "contradict" not in judge_challenger(losses(-gain, 5, 7), names, rule, gain).text


def test_an_age_after_which_the_loss_hardly_grows_promises_no_more(rule: RetrainRule) -> None:
    old, older = (decide([standing(days_since=days)], rule)[0].stale for days in (180, 1_000))
    assert old == older == rule.staleness_a_day * 180


def test_a_loss_that_is_no_number_never_deploys(rule: RetrainRule) -> None:
    names = [f"p{place:03d}" for place in range(10)]
    for value in (np.inf, np.nan):
        table = losses(-0.1, 10, 3)
        table.loc[0, "challenger"] = value
        found = judge_challenger(table, names, rule)
        assert (found.deploys, found.text) == (False, "its loss is no number on 1 of 30 held-out days: not deployed")
    assert "expected of newer" not in judge_challenger(losses(0.5, 10, 3), names, rule).text
