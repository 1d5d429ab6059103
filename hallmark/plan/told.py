"""Machines, times and money in words, as every report of a plan has them."""

from dataclasses import asdict
from typing import Any

from hallmark.plan.plan import Offer
from hallmark.plan.serve import Replica


def machine(offer: Offer | Replica) -> str:
    """Name a machine."""
    price = offer.price
    return f"{price.provider} {price.product}, {price.gpus} × {price.gpu}, {price.tier}".rstrip(", ")


def hours(offer: Offer) -> str:
    """Say how long training takes, from and to."""
    low, high = offer.hours
    return f"{duration(low)} to {duration(high)}" if high > 1 / 60 else "under a minute"


def usd(offer: Offer) -> str:
    """Say what training costs, from and to."""
    return f"{offer.usd[0]:,.2f} to {offer.usd[1]:,.2f}" if offer.usd[1] >= 0.01 else "less than 0.01"


def duration(hours: float) -> str:
    """Say hours in the unit that fits."""
    for unit, seconds in (("h", 3600), ("min", 60)):
        if hours * 3600 >= seconds:
            return f"{hours * 3600 / seconds:,.1f} {unit}"
    return f"{hours * 3600:,.1f} s"


def plain(offer: Offer) -> dict[str, Any]:
    """Return an offer as JSON values."""
    values = asdict(offer)
    return {**values, "price": {**values["price"], "read": offer.price.read.isoformat()}}
