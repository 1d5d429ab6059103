"""Simulate glucose and insulin in type 1 diabetes: the model of Hovorka et al., vectorised over subjects.

Sources:
    H04: Hovorka R. et al., "Nonlinear model predictive control of glucose concentration in subjects with type 1
        diabetes", Physiol. Meas. 25:905-920 (2004): glucose, insulin and gut equations, parameter means.
    W10: Wilinska M. E. et al., "Simulation environment to evaluate closed-loop insulin delivery systems in type 1
        diabetes", J. Diabetes Sci. Technol. 4:132-144 (2010): subjects sampled around the means, interstitial lag.
    The coefficients of variation are chosen for this repository.

Shape legend: P subjects, N states.
"""

from dataclasses import dataclass, field, fields, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STEP_MIN = 5
MMOL_PER_G_GLUCOSE = 1000 / 180.16
MG_DL_PER_MMOL_L = 18.016  # molar mass of glucose 180.16 g/mol

# Columns of the state (P, N): gut, subcutaneous insulin, plasma insulin, insulin actions, glucose, interstitium.
D1, D2, S1, S2, INSULIN, X1, X2, X3, Q1, Q2, C = range(11)


@dataclass(frozen=True)
class SubjectPhysiology:
    """Physiology of each subject, every field (P,), amounts per kg; names and means as in H04, k_int as in W10."""

    k12: Floats = field(metadata={"mean": 0.066, "cv": 0.15})  # return from the non-accessible compartment, 1/min
    ka1: Floats = field(metadata={"mean": 0.006, "cv": 0.20})  # deactivation of insulin action on transport, 1/min
    ka2: Floats = field(metadata={"mean": 0.06, "cv": 0.20})  # on disposal, 1/min
    ka3: Floats = field(metadata={"mean": 0.03, "cv": 0.20})  # on the liver, 1/min
    sit: Floats = field(metadata={"mean": 51.2e-4, "cv": 0.25})  # insulin sensitivity of transport, 1/min per mU/L
    sid: Floats = field(metadata={"mean": 8.2e-4, "cv": 0.25})  # of disposal, 1/min per mU/L
    sie: Floats = field(metadata={"mean": 520e-4, "cv": 0.25})  # of the liver, per mU/L
    egp0: Floats = field(metadata={"mean": 0.0161, "cv": 0.12})  # liver output at zero insulin, mmol/kg/min
    f01: Floats = field(metadata={"mean": 0.0097, "cv": 0.08})  # uptake that needs no insulin, mmol/kg/min
    vg: Floats = field(metadata={"mean": 0.16, "cv": 0.10})  # distribution volume of glucose, L/kg
    vi: Floats = field(metadata={"mean": 0.12, "cv": 0.10})  # of insulin, L/kg
    ke: Floats = field(metadata={"mean": 0.138, "cv": 0.10})  # elimination of plasma insulin, 1/min
    ag: Floats = field(metadata={"mean": 0.8, "cv": 0.05})  # share of carbohydrate that reaches the blood
    tau_insulin: Floats = field(metadata={"mean": 55.0, "cv": 0.15})  # tmax_I, injected insulin, min
    tau_gut: Floats = field(metadata={"mean": 40.0, "cv": 0.20})  # tmax_G, a usual meal, min
    k_int: Floats = field(metadata={"mean": 0.073, "cv": 0.15})  # plasma to interstitium, 1/min
    weight_kg: Floats = field(metadata={"mean": 74.0, "cv": 0.15})


def draw_bodies(people: int, rng: np.random.Generator) -> SubjectPhysiology:
    """Sample the physiology of `people` subjects."""
    sampled = {
        item.name: item.metadata["mean"] * np.exp(item.metadata["cv"] * normal(rng, (people,)))
        for item in fields(SubjectPhysiology)
    }
    body = SubjectPhysiology(**sampled)
    # F01 follows EGP0: with independent samples, no basal rate would hold the target of some subjects.
    share = np.minimum(body.f01 / 0.0161, 0.75)
    return replace(body, f01=share * body.egp0, ag=np.minimum(body.ag, 0.95))


def steady_state(body: SubjectPhysiology, glucose: Floats, insulin: Floats) -> tuple[Floats, Floats]:
    """Return the resting state (P, N) at a glucose (mmol/L) and an insulin level (mU/L), and its net flow.

    The flow into plasma glucose (P,), mmol/kg/min, is zero only where insulin is the fasting need.
    """
    x1, x2, x3 = body.sit * insulin, body.sid * insulin, body.sie * insulin
    q1 = glucose * body.vg
    q2 = x1 * q1 / (body.k12 + x2)
    depot = insulin * body.ke * body.vi * body.tau_insulin
    zeros = np.zeros_like(q1)
    state = np.stack([zeros, zeros, depot, depot, insulin, x1, x2, x3, q1, q2, glucose], axis=1)
    ones = np.ones_like(q1)
    return state, _derivative(body, state, depot / body.tau_insulin, ones, body.tau_gut)[:, Q1]


def _derivative(
    body: SubjectPhysiology, state: Floats, infusion: Floats, sensitivity: Floats, tau_gut: Floats
) -> Floats:
    """Evaluate the right-hand side of the Hovorka model.

    State (P, N): D, Q mmol/kg; S mU/kg; I mU/L; x1, x2 1/min; x3 without unit; C mmol/L. Basal `infusion` (P,) is in
    mU/kg/min, meals and boluses enter as jumps of D1 and S1; `sensitivity` (P,) is relative; `tau_gut` (P,), min, is
    that of the meal under way. Returns the change of each state per minute, (P, N).
    """
    d1, d2, s1, s2, insulin, x1, x2, x3, q1, q2, interstitial = state.T
    glucose = q1 / body.vg
    # H04, gut absorption: two equal compartments in series are its U_G = D_G A_G t exp(-t/tmax_G) / tmax_G^2.
    eaten, absorbed = d1 / tau_gut, d2 / tau_gut
    # H04, insulin absorption: two equal compartments with tmax_I, U_I = S2 / tmax_I.
    released, appeared = s1 / body.tau_insulin, s2 / body.tau_insulin
    # H04, glucose subsystem: uptake without insulin falls below 4.5 mmol/L (F01^c), kidneys act above 9 (F_R).
    uptake = body.f01 * np.minimum(glucose / 4.5, 1.0)
    renal = 0.003 * np.maximum(glucose - 9.0, 0.0) * body.vg
    # A large bolus drives 1 - x3 below zero, where the linear law of H04 would make the liver a sink: floored.
    liver = body.egp0 * np.maximum(1.0 - x3, 0.0)
    moved, back = x1 * q1, body.k12 * q2
    acting = sensitivity * insulin
    return np.stack(
        [
            -eaten,
            eaten - absorbed,
            infusion - released,
            released - appeared,
            appeared / body.vi - body.ke * insulin,  # H04, plasma insulin
            body.ka1 * (body.sit * acting - x1),  # H04, insulin action on transport, with k_b = S k_a
            body.ka2 * (body.sid * acting - x2),  # on disposal
            body.ka3 * (body.sie * acting - x3),  # on the liver
            liver + absorbed + back - uptake - moved - renal,  # H04, accessible glucose
            moved - back - x2 * q2,  # H04, non-accessible glucose
            body.k_int * (glucose - interstitial),  # W10, interstitial glucose
        ]
    ).T


def advance(body: SubjectPhysiology, state: Floats, infusion: Floats, sensitivity: Floats, tau_gut: Floats) -> Floats:
    """Advance the state (P, N) by 5 minutes: one classical Runge-Kutta step, as the fastest rate is 0.14 / min."""
    k1 = _derivative(body, state, infusion, sensitivity, tau_gut)
    k2 = _derivative(body, state + STEP_MIN / 2 * k1, infusion, sensitivity, tau_gut)
    k3 = _derivative(body, state + STEP_MIN / 2 * k2, infusion, sensitivity, tau_gut)
    k4 = _derivative(body, state + STEP_MIN * k3, infusion, sensitivity, tau_gut)
    return state + STEP_MIN / 6 * (k1 + 2 * (k2 + k3) + k4)


def evenly(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> Floats:
    """Sample uniform values, one in each of P equal strata of every column (Latin hypercube); shape is (P, ...).

    A cohort is small: independent samples would make its overall statistics differ a lot from seed to seed.
    """
    strata = rng.permuted(np.broadcast_to(np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)), shape), axis=0)
    return low + (high - low) * (strata + rng.uniform(0.001, 0.999, shape)) / shape[0]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Sample standard normal values, stratified like `evenly`."""
    quantile = NormalDist().inv_cdf
    return np.array([quantile(u) for u in evenly(rng, 0.0, 1.0, shape).ravel()]).reshape(shape)
