"""Loading and saving of the weights of trees, under their published names."""

from refiners_core.weights.key_map import (
    AS_IS,
    LINEAR_AS_CONV,
    SAME,
    TRANSPOSED,
    TURNED,
    KeyMap,
    Transform,
    stacked,
)
from refiners_core.weights.load import MisfitError, load, published, save
from refiners_core.weights.pickle_file import PickleError, rewrite_pickle
from refiners_core.weights.sharded import read
from refiners_core.weights.tensor_file import PICKLES, TensorFile, rewriting_hint, write

__all__ = [
    "AS_IS",
    "LINEAR_AS_CONV",
    "PICKLES",
    "SAME",
    "TRANSPOSED",
    "TURNED",
    "KeyMap",
    "MisfitError",
    "PickleError",
    "TensorFile",
    "Transform",
    "load",
    "published",
    "read",
    "rewrite_pickle",
    "rewriting_hint",
    "save",
    "stacked",
    "write",
]
