"""Simulate continuous glucose monitoring of subjects with type 1 diabetes: the offline default source.

The body is the model in physiology.py. Behaviour (meals, doses, exercise) is modelled in this file: every subject has
constant habits, which personal models can learn, and noise around them, which makes the forecasts hard.

Shape legend: S steps of 5 minutes, P subjects, D days, M meal slots of a day. `_SP` is (step, subject).
"""

from dataclasses import dataclass
from datetime import date
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from hallmark.build import Count, configuration
from hallmark.contracts import Progress, Raw, no_progress
from hallmark.tasks.glucose.physiology import (
    D1,
    D2,
    MG_DL_PER_MMOL_L,
    MMOL_PER_G_GLUCOSE,
    S1,
    S2,
    STEP_MIN,
    C,
    SubjectPhysiology,
    advance,
    draw_bodies,
    evenly,
    normal,
    steady_state,
)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

STEPS_PER_DAY = 24 * 60 // STEP_MIN
SENSOR_RANGE_MG_DL = (40.0, 400.0)
RULE_500_TO_1800 = 1800 / 500  # clinic rules: grams per unit = 500/TDD, mg/dL per unit = 1800/TDD


@configuration
class SimulatedGlucose:
    """A reproducible cohort of simulated subjects with glucose sensors.

    Attributes:
        subjects: number of subjects.
        days: length of every record, days.
        seed: the only source of randomness; equal settings give bit-identical tables.
        start: first day, ISO date; every record starts at its local midnight.
        noise_sd: stationary standard deviation of the sensor's autocorrelated relative error, a fraction.
        noise_half_life_min: minutes after which half of a sensor error is left.
        dropouts_per_day: mean number of gaps per subject and day; 0 gives complete records.
        dropout_median_min: median length of a gap, minutes; lengths are log-normal with a tail of hours.
        day_to_day_sd: standard deviation of the slow random change of log insulin sensitivity.
    """

    subjects: Count
    days: Count
    seed: Annotated[int, Field(ge=0)]
    start: str
    noise_sd: Annotated[float, Field(ge=0, le=0.5)]
    noise_half_life_min: Annotated[float, Field(ge=1)]
    dropouts_per_day: Annotated[float, Field(ge=0, le=24)]
    dropout_median_min: Annotated[float, Field(ge=1)]
    day_to_day_sd: Annotated[float, Field(ge=0, le=0.5)]

    def __post_init__(self) -> None:
        try:
            date.fromisoformat(self.start)
        except ValueError as error:
            raise ValueError(f"start={self.start!r}: must be an ISO date such as 2024-01-01") from error

    def load(self, progress: Progress = no_progress) -> Raw:
        """Sample the subjects, simulate their days, and read their sensors.

        Rows are sorted by subject and time; a reading lost to a dropout is a missing row, never NaN.
        """
        # Separate streams: other settings of noise or dropouts do not change the subjects and their days.
        subject_rng, life_rng, sensor_rng = (
            np.random.default_rng(child) for child in np.random.SeedSequence(self.seed).spawn(3)
        )
        body = draw_bodies(self.subjects, subject_rng)
        habits = _draw_habits(self.subjects, subject_rng)
        therapy = _tune_therapy(body, habits, subject_rng)
        life = _live(self, body, habits, therapy, life_rng)
        correlation = 0.5 ** (STEP_MIN / self.noise_half_life_min)
        error_SP = 1 + self.noise_sd * _ar1(sensor_rng, correlation, self.days * STEPS_PER_DAY, self.subjects)
        glucose_SP = _run(body, habits, therapy, life, error_SP)
        kept_PS = ~_dropouts(self, sensor_rng).T
        subject, step = np.nonzero(kept_PS)  # subject-major, so the rows come out sorted
        subject_ids = np.array([f"sim-{index:03d}" for index in range(self.subjects)])
        rows = pd.DataFrame(
            {
                "subject_id": subject_ids[subject],
                "timestamp": np.datetime64(self.start, "s") + step * np.timedelta64(STEP_MIN, "m"),
                "glucose": glucose_SP.T[kept_PS],
                "source": "simulated",
            }
        )
        subjects = pd.DataFrame(
            {
                "subject_id": subject_ids,
                "age_band": subject_rng.choice(["18-39", "40-59", "60 and over"], self.subjects),
                "sex": subject_rng.choice(["female", "male"], self.subjects),
                "diabetes_type": "T1D",
                "device": "simulated",
            }
        )
        progress("simulate", self.subjects, self.subjects, f"{len(rows):,} readings")
        return Raw(rows, subjects, {"simulator": "hovorka", "seed": self.seed})


@dataclass(frozen=True)
class _Habits:
    """Habits of each subject: (P,) unless a comment gives another shape."""

    meal_min_PM: Floats  # clock minute, grams, chance, and relative absorption time of each slot of the day
    meal_g_PM: Floats
    meal_chance_PM: Floats
    meal_tau_PM: Floats
    weekend_shift_min: Floats  # delay of all events on Saturday and Sunday
    irregularity: Floats  # 1 is usual; scales the scatter of meal times and sizes
    count_bias: Floats  # counted over eaten carbohydrate
    bolus_delay_min: Floats  # mean delay of a late bolus after the first bite
    forget_chance: Floats
    exercise_week_P7: Bools
    exercise_min: Floats
    exercise_gain: Floats  # relative rise of insulin sensitivity, and minutes until it has decayed to 1/e
    exercise_tau_min: Floats
    circadian_PH: Floats  # relative insulin sensitivity at each step of the day, (P, 288)
    high_mg_dl: Floats  # a correction is considered above this, rescue carbohydrate below low_mg_dl
    low_mg_dl: Floats


@dataclass(frozen=True)
class _Therapy:
    """Pump settings, each (P,)."""

    target_mg_dl: Floats
    basal: Floats  # mU/kg/min that holds the target when fasting, at usual sensitivity
    carb_ratio: Floats  # grams covered by a unit
    correction: Floats  # mg/dL lowered by a unit


@dataclass(frozen=True)
class _Life:
    """Everything that does not depend on glucose, sampled in advance; every field (S, P)."""

    carbs_g: Floats
    counted_g: Floats  # at the time of its bolus
    tau_gut: Floats
    sensitivity: Floats
    basal: Floats
    acts_high: Bools  # would check the sensor and act at this step, if glucose were high or low
    acts_low: Bools


def _ar1(rng: np.random.Generator, keep: float, rows: int, people: int) -> Floats:
    """Sample stationary AR(1) series of unit variance, (rows, P); `keep` is the correlation of neighbours."""
    series: Floats = rng.standard_normal((rows, people))
    series[1:] *= np.sqrt(1 - keep**2)
    for row in range(1, rows):
        series[row] += keep * series[row - 1]
    return series


def _draw_habits(people: int, rng: np.random.Generator) -> _Habits:
    """Sample habits; slots are breakfast, morning snack, lunch, afternoon snack, dinner, evening snack."""
    clock_h = np.array([7.3, 10.2, 12.6, 16.0, 18.9, 21.7])
    spread_h = np.array([0.8, 0.5, 0.6, 0.6, 0.8, 0.5])
    grams = np.array([33.5, 12.5, 45.5, 14.5, 52.0, 12.5])
    shape_PM, shape_P = (people, len(clock_h)), (people,)
    chance = np.where(
        np.arange(len(clock_h)) % 2 == 0, evenly(rng, 0.80, 1.0, shape_PM), evenly(rng, 0.0, 0.6, shape_PM)
    )
    hour_H = np.arange(STEPS_PER_DAY) / STEPS_PER_DAY * 24
    # Dawn phenomenon: a personal dip of sensitivity in the early morning, on a personal day-night wave.
    dawn_h, wave_h = 6.0 + 1.0 * normal(rng, (people, 1)), 16.0 + 3.0 * normal(rng, (people, 1))
    dawn_depth, wave_height = evenly(rng, 0.0, 0.45, (people, 1)), evenly(rng, 0.0, 0.20, (people, 1))
    dawn = np.exp(5.0 * (np.cos((hour_H - dawn_h) * np.pi / 12) - 1))
    wave = np.cos((hour_H - wave_h) * np.pi / 12)
    return _Habits(
        meal_min_PM=60 * (clock_h + spread_h * normal(rng, shape_PM)),
        meal_g_PM=grams * np.exp(0.28 * normal(rng, shape_PM)),
        meal_chance_PM=chance,
        meal_tau_PM=np.exp(0.20 * normal(rng, shape_PM)),
        weekend_shift_min=evenly(rng, 0.0, 120.0, shape_P),
        irregularity=np.exp(0.35 * normal(rng, shape_P)),
        count_bias=np.exp(0.10 * normal(rng, shape_P)),
        bolus_delay_min=evenly(rng, 0.0, 25.0, shape_P),
        forget_chance=evenly(rng, 0.0, 0.08, shape_P),
        exercise_week_P7=rng.random((people, 7)) < evenly(rng, 0.0, 0.6, (people, 1)),
        exercise_min=60 * (np.where(evenly(rng, 0.0, 1.0, shape_P) < 0.4, 9.0, 17.5) + normal(rng, shape_P)),
        exercise_gain=evenly(rng, 0.2, 0.7, shape_P),
        exercise_tau_min=evenly(rng, 120, 420, shape_P),
        circadian_PH=np.exp(wave_height * wave - dawn_depth * dawn),
        high_mg_dl=evenly(rng, 165.0, 220.0, shape_P),
        low_mg_dl=evenly(rng, 66.0, 80.0, shape_P),
    )


def _tune_therapy(body: SubjectPhysiology, habits: _Habits, rng: np.random.Generator) -> _Therapy:
    """Compute the pump settings that a careful clinic would choose for each subject, with a lasting individual error.

    Basal rate: bisection on fasting insulin, as the net flow falls with it. Carb ratio: bisection on a simulated
    standard meal, so that glucose is back at the target five hours after it.
    """
    people = len(body.weight_kg)
    target = evenly(rng, 106.0, 124.0, (people,))
    glucose = target / MG_DL_PER_MMOL_L
    low, high = np.zeros(people), np.full(people, 60.0)
    for _ in range(40):
        insulin = (low + high) / 2
        too_little = steady_state(body, glucose, insulin)[1] > 0
        low, high = np.where(too_little, insulin, low), np.where(too_little, high, insulin)
    rest, _ = steady_state(body, glucose, insulin)
    basal = insulin * body.ke * body.vi
    ones, meal_g = np.ones(people), habits.meal_g_PM[:, ::2].mean(axis=1)
    low, high = np.full(people, np.log(1.5)), np.full(people, np.log(80.0))
    for _ in range(9):
        ratio = np.exp((low + high) / 2)
        state = rest.copy()
        state[:, D1] += body.ag * meal_g * MMOL_PER_G_GLUCOSE / body.weight_kg
        state[:, S1] += 1000 * meal_g / ratio / body.weight_kg
        for _ in range(5 * 60 // STEP_MIN):
            state = advance(body, state, basal, ones, body.tau_gut)
        too_strong = state[:, C] < glucose
        low, high = np.where(too_strong, (low + high) / 2, low), np.where(too_strong, high, (low + high) / 2)
    return _Therapy(
        target_mg_dl=target,
        basal=basal * np.exp(0.05 * normal(rng, (people,))),
        carb_ratio=ratio * np.exp(0.10 * normal(rng, (people,))),
        correction=ratio * RULE_500_TO_1800 * np.exp(0.10 * normal(rng, (people,))),
    )


def _live(
    cohort: SimulatedGlucose, body: SubjectPhysiology, habits: _Habits, therapy: _Therapy, rng: np.random.Generator
) -> _Life:
    """Sample meals, doses, exercise and sensitivity for all days, as far as they do not depend on glucose."""
    steps, people = cohort.days * STEPS_PER_DAY, cohort.subjects
    shape_DPM = (cohort.days, *habits.meal_g_PM.shape)
    weekday_D = (date.fromisoformat(cohort.start).weekday() + np.arange(cohort.days)) % 7
    shift_DP = np.where(weekday_D[:, None] >= 5, habits.weekend_shift_min, 0.0)
    irregular = habits.irregularity[:, None]
    day_D11 = np.arange(cohort.days)[:, None, None] * STEPS_PER_DAY
    subject_DPM = np.broadcast_to(np.arange(people)[:, None], shape_DPM)

    minute = habits.meal_min_PM + shift_DP[..., None] + 35 * irregular * rng.standard_normal(shape_DPM)
    eaten_g = habits.meal_g_PM * np.exp(0.25 * irregular * rng.standard_normal(shape_DPM))
    counted_g = eaten_g * habits.count_bias[:, None] * np.exp(0.18 * rng.standard_normal(shape_DPM))
    tau = body.tau_gut[:, None] * habits.meal_tau_PM * np.exp(0.15 * rng.standard_normal(shape_DPM))
    delay = habits.bolus_delay_min[:, None] * rng.exponential(1.0, shape_DPM)
    eats = rng.random(shape_DPM) < habits.meal_chance_PM
    doses = eats & (rng.random(shape_DPM) >= habits.forget_chance[:, None])

    def step_of(minutes: Floats) -> npt.NDArray[np.int64]:
        return np.clip(day_D11 + (minutes / STEP_MIN).astype(np.int64), 0, steps - 1)

    carbs_SP, counted_SP, tau_SP = np.zeros((steps, people)), np.zeros((steps, people)), np.zeros((steps, people))
    np.add.at(carbs_SP, (step_of(minute)[eats], subject_DPM[eats]), eaten_g[eats])
    np.add.at(counted_SP, (step_of(minute + delay)[doses], subject_DPM[doses]), counted_g[doses])
    tau_SP[step_of(minute)[eats], subject_DPM[eats]] = tau[eats]
    tau_SP[0] = body.tau_gut
    latest = np.maximum.accumulate(np.where(tau_SP > 0, np.arange(steps)[:, None], 0), axis=0)
    tau_SP = np.take_along_axis(tau_SP, latest, axis=0)

    # Slow change of sensitivity (illness, stress, cycle, infusion sites): a knot every 12 hours, joined by lines.
    knots = _ar1(rng, 0.7, 2 * cohort.days + 1, people)
    share = np.linspace(0, 1, STEPS_PER_DAY // 2, endpoint=False)[None, :, None]
    slow_SP = (knots[:-1, None] * (1 - share) + knots[1:, None] * share).reshape(steps, people)

    trains = habits.exercise_week_P7.T[weekday_D] & (rng.random(shift_DP.shape) < 0.85)
    day, subject = np.nonzero(trains)
    begin_step = day * STEPS_PER_DAY + (habits.exercise_min[subject] + 20 * rng.standard_normal(len(day))) / STEP_MIN
    age_min = STEP_MIN * np.arange(STEPS_PER_DAY)
    decay = np.exp(-np.maximum(age_min - 45, 0) / habits.exercise_tau_min[subject, None])
    effect = habits.exercise_gain[subject, None] * np.minimum(age_min / 45, 1.0) * decay
    exercise_SP = np.zeros((steps + STEPS_PER_DAY, people))
    exercise_steps = begin_step.astype(np.int64)[:, None] + np.arange(STEPS_PER_DAY)
    np.add.at(exercise_SP, (exercise_steps, subject[:, None]), effect)

    circadian_SP = np.tile(habits.circadian_PH.T, (cohort.days, 1))
    awake_SP = np.tile((age_min >= 6.5 * 60) & (age_min < 23 * 60), cohort.days)[:, None]
    attention = rng.random((steps, people))
    return _Life(
        carbs_g=carbs_SP,
        counted_g=counted_SP,
        tau_gut=tau_SP,
        sensitivity=circadian_SP * np.exp(cohort.day_to_day_sd * slow_SP) * (1 + exercise_SP[:steps]),
        # A programmed profile offsets most, never all, of the circadian change.
        basal=therapy.basal * circadian_SP**-0.6,
        acts_high=attention < np.where(awake_SP, 0.08, 0.015),
        acts_low=attention < np.where(awake_SP, 0.30, 0.15),
    )


def _run(body: SubjectPhysiology, habits: _Habits, therapy: _Therapy, life: _Life, error_SP: Floats) -> Floats:
    """Integrate all subjects through all steps; doses and rescue carbohydrate depend on the sensor reading.

    Returns:
        Sensor glucose (S, P), whole mg/dL within the sensor's range.
    """
    glucose = therapy.target_mg_dl / MG_DL_PER_MMOL_L
    state, _ = steady_state(body, glucose, therapy.basal / (body.ke * body.vi))
    depot_at_rest = 2 * therapy.basal * body.tau_insulin
    shown_SP = np.empty_like(error_SP)
    since_dose, since_rescue = np.full_like(glucose, 1e6), np.full_like(glucose, 1e6)
    for step in range(len(shown_SP)):
        shown = np.clip(np.rint(state[:, C] * MG_DL_PER_MMOL_L * error_SP[step]), *SENSOR_RANGE_MG_DL)
        shown_SP[step] = shown

        on_board = np.maximum(state[:, S1] + state[:, S2] - depot_at_rest, 0) * body.weight_kg / 1000
        excess = (shown - therapy.target_mg_dl) / therapy.correction
        excess = np.where(excess > 0, np.maximum(excess - on_board, 0), excess)
        counted = life.counted_g[step]
        corrects = (shown > habits.high_mg_dl) & life.acts_high[step] & (since_dose >= 90)
        units = np.where((counted > 0) | corrects, np.maximum(counted / therapy.carb_ratio + excess, 0), 0)
        rescues = (shown < habits.low_mg_dl) & life.acts_low[step] & (since_rescue >= 20)
        since_dose = np.where(units > 0, 0, since_dose + STEP_MIN)
        since_rescue = np.where(rescues, 0, since_rescue + STEP_MIN)

        grams_to_state = body.ag * MMOL_PER_G_GLUCOSE / body.weight_kg
        state[:, D1] += life.carbs_g[step] * grams_to_state
        state[:, D2] += np.where(rescues, 15.0, 0.0) * grams_to_state  # glucose tablets skip the first compartment
        state[:, S1] += 1000 * units / body.weight_kg
        # Pumps suspend the basal rate ahead of a low.
        infusion = np.where(shown < 80, 0.0, life.basal[step])
        state = advance(body, state, infusion, life.sensitivity[step], life.tau_gut[step])
    return shown_SP


def _dropouts(cohort: SimulatedGlucose, rng: np.random.Generator) -> Bools:
    """Sample which readings are lost, (S, P): gaps at random times, a few minutes to many hours long."""
    steps = cohort.days * STEPS_PER_DAY
    gaps = rng.poisson(cohort.dropouts_per_day * cohort.days, cohort.subjects)
    subject = np.repeat(np.arange(cohort.subjects), gaps)
    begin_step = rng.integers(0, steps, len(subject))
    length_min = cohort.dropout_median_min * np.exp(1.1 * rng.standard_normal(len(subject)))
    length = np.ceil(length_min / STEP_MIN).astype(np.int64)
    # Count openings minus closings: memory stays linear in the readings, however long the gaps are.
    change = np.zeros((steps + 1, cohort.subjects), dtype=np.int64)
    np.add.at(change, (begin_step, subject), 1)
    np.add.at(change, (np.minimum(begin_step + length, steps), subject), -1)
    lost: Bools = np.cumsum(change[:-1], axis=0) > 0
    return lost
