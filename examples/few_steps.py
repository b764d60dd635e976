"""
Few-step LoRAs
==============

A LoRA that was distilled for a few steps is only right with its sampler, its number of steps and
its guidance (LCM, Lightning, Hyper-SD, DMD2, TCD). Its advice names them, and a generation follows.
"""

# %%
# Advice is a value on the class or on the object. A package writes it into its manifest instead, as
# ``[adapter.NAME.advice]``, where ``refiners info NAME`` reads it without running the code.

from typing import Any

from torch import nn

from refiners_core import Adapter, Advice, Chain, Edit, Multiply, Seat, Sum, When


class FewSteps(Adapter):
    """Adds low-rank updates to the queries of every attention, distilled for four steps."""

    advice = Advice(sampler="lcm", steps=4, guidance=1.0, is_required=True)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        queries = model.slot("unet.linear").where(lambda seat: seat.name == "to_q")
        return queries.wrap(self.updated, name="update")

    def updated(self, inner: nn.Module, seat: Seat) -> nn.Module:
        update = self.layer(seat, lambda: low_rank(seat.layer.in_features, seat.layer.out_features))
        return Sum(inner, When(self.scale_key, update, Multiply(self.scale_key)))


def low_rank(inputs: int, outputs: int) -> Chain:
    down, up = nn.Linear(inputs, 2, bias=False), nn.Linear(2, outputs, bias=False)
    return Chain(down=down, up=up)


# %%
# On a tiny model
# ---------------
#
# The UNet runs four times, with one pass each. An argument of the caller takes precedence, with a
# notice; two adapters that disagree are an error that names what to pass.

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    model = tiny_model()
    calls: list[int] = []
    model.unet.register_forward_hook(lambda unet, inputs, output: calls.append(len(output)))
    with FewSteps(key="few-steps").on(model):
        model.generate("a red circle", seed=7, progress=False)
    print(f"rows of each call of the UNet: {calls}")
