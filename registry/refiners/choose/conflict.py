"""Checks declared conflicts whenever an adapter is put on, also one that was on a model before."""

from __future__ import annotations

from functools import cache
from typing import Final

from refiners.choose.compatibility import conflicts
from refiners.choose.variant import facts_of, made_from
from refiners.errors import IncompatibleError
from refiners_core.hookspecs import Surgery, hookimpl, manager


class ConflictCheck:
    """The hooks by which manifests refuse adapters beside others."""

    @hookimpl
    def before_inject(self, event: Surgery) -> None:
        """Refuses an adapter that conflicts with one that the model wears.

        Raises:
            IncompatibleError: A manifest declares the conflict.
        """
        from refiners_core import Adapter, Model

        adapter, tree = event.adapter, event.tree
        if not isinstance(adapter, Adapter) or not isinstance(tree, Model):
            return
        plugin = made_from.get(adapter)
        if plugin is None:
            return
        label = adapter.source.variant if adapter.source else None
        company = facts_of(tree).worn
        for variant in plugin.spec.variant:
            if label not in (None, variant.label):
                continue
            for worn in company:
                for refusal in conflicts(adapter.name, plugin, variant, worn):
                    raise IncompatibleError(
                        f"{adapter.name} does not go with {worn.name}:",
                        (refusal,),
                        dist=plugin.dist,
                    )


_CHECK: Final = ConflictCheck()


@cache
def check_conflicts() -> None:
    """Registers the check for this process, once."""
    manager().register(_CHECK, "refiners:conflicts")
