"""Measures of adapters that let a language model read the prompt, in free wording."""

from __future__ import annotations

from random import Random
from typing import Any

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.measure.sampling import BASE, all_of, generated, recogniser
from refiners_playground.recogniser import WEIGHTS
from refiners_playground.request import Request, random_request


class FreeWording(Measure):
    """Requests in words and forms that the text encoder of the base never saw.

    They wish for one object, whose shape, colour and background are held out together.
    """

    base = BASE
    adapter = "ella"
    summary = "held-out requests of one object, in free wording"
    files = (WEIGHTS,)
    figures = (
        Figure("all of shape, colour and background", least=0.7, together=0.85),
        Figure("shape"),
        Figure("colour"),
        Figure("background"),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        requests = free_requests(count)
        prompts = [request.text for request in requests]
        pixels = generated(model, prompts, settings, adapter)
        pairs = list(zip(recogniser().read(pixels), requests, strict=True))
        outcomes = {
            "shape": [float(r["shape"] == q.answer.things[0].shape) for r, q in pairs],
            "colour": [float(r["colour"] == q.answer.things[0].colour) for r, q in pairs],
            "background": [float(r["background"] == q.answer.background) for r, q in pairs],
        }
        outcomes["all of shape, colour and background"] = all_of(*outcomes.values())
        return Samples(outcomes, prompts, pixels)


def free_requests(count: int) -> list[Request]:
    """Returns held-out requests that name shape, colour and background of one object."""
    random, requests = Random(29), list[Request]()
    while len(requests) < count:
        request = random_request(random, held_out=True)
        wish = request.wish
        if (
            len(wish.things) == 1
            and wish.background
            and all(thing.shape and thing.colour and thing.size != "small" for thing in wish.things)
        ):
            requests.append(request)
    return requests
