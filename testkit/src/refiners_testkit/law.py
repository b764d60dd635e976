"""The laws of `refiners_core.testing` as checks, on each base that an adapter declares."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from refiners_core.testing import CONDUCT, LAWS, AdapterCase
from refiners_testkit.check import check, fail

Law = Callable[[AdapterCase], None]
_BY_NAME: dict[str, Law] = {law.__name__: law for law in (*LAWS, *CONDUCT)}


def _asked(name: str, id: str = "") -> Callable[[Any], None]:
    """Returns the check of a law."""
    law = _BY_NAME[name]

    def test(self: "Laws") -> None:
        self.keep(law)

    test.__doc__ = law.__doc__
    return check(id or name.replace("_", "-"))(test)


class Laws:
    """The laws of edits and of conduct, one check each."""

    test_it_restores_the_model = _asked("restores_the_model")
    test_it_acts = _asked("acts")
    test_it_is_absent_when_left_out = _asked("is_absent_when_left_out")
    test_it_does_not_mind_the_order = _asked("does_not_mind_the_order")
    test_it_patches_the_same_beside_others = _asked("patches_the_same_beside_others")
    test_it_owns_its_layers = _asked("owns_its_layers")
    test_it_takes_the_dtype_of_the_base = _asked("takes_the_dtype_of_the_base")
    test_it_refuses_what_makes_no_sense = _asked("refuses_what_makes_no_sense")
    test_it_fails_without_a_trace = _asked("fails_without_a_trace")
    test_it_edits_what_it_declares = _asked("edits_what_it_declares", "targets")
    test_it_is_left_behind_by_copies = _asked("is_left_behind_by_copies")
    test_it_is_freed_by_counting = _asked("is_freed_by_counting")
    test_it_leaves_others_alone = _asked("leaves_others_alone")
    test_it_keeps_no_tensors = _asked("keeps_no_tensors")
    test_it_leaves_settings_alone = _asked("leaves_settings_alone")

    def cases(self) -> Iterator[tuple[str, AdapterCase]]:
        """Yields the name and the case of each base."""
        raise NotImplementedError

    def keep(self, law: Law) -> None:
        """Checks a law on each base, from a fixed seed."""
        for base, case in self.cases():
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(3)
                try:
                    law(case)
                except AssertionError as error:
                    fail(f"on {base}: {error}", f"The law: {law.__doc__}")
