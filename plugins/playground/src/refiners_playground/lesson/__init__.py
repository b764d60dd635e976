"""Lessons: what the adapters of the playground learn from.

Each function returns a source of examples, which `refiners-train` names by its path, such as
`refiners_playground.lesson:edged`, and calls with the options of the configuration.
"""

from refiners_playground.lesson.control import edged, segmented, unified
from refiners_playground.lesson.example import Example, Lesson
from refiners_playground.lesson.face import identified, identified_and_placed
from refiners_playground.lesson.light import relit
from refiners_playground.lesson.prompt import coloured, known, pictured
from refiners_playground.lesson.request import requested
from refiners_playground.lesson.style import inked, subject, worded

__all__ = [
    "Example",
    "Lesson",
    "coloured",
    "edged",
    "identified",
    "identified_and_placed",
    "inked",
    "known",
    "pictured",
    "relit",
    "requested",
    "segmented",
    "subject",
    "unified",
    "worded",
]
