"""How each key of a published `scheduler_config.json` is read, by the class that writes it."""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from refiners_core.models.config_reader import Format

SCHEDULER: Final = Format.of(
    followed=(
        "num_train_timesteps beta_start beta_end beta_schedule prediction_type timestep_spacing "
        "timestep_type steps_offset set_alpha_to_one rescale_betas_zero_snr use_karras_sigmas "
        "use_exponential_sigmas use_beta_sigmas sigma_min sigma_max final_sigmas_type "
        "lambda_min_clipped original_inference_steps solver_order solver_type algorithm_type "
        "clip_sample clip_sample_range thresholding dynamic_thresholding_ratio sample_max_value "
        "skip_prk_steps lower_order_final euler_at_final predict_x0 "
        "disable_corrector solver_p"
    ),
    fixed={
        "trained_betas": (None,),
        "use_lu_lambdas": (False,),
        "use_flow_sigmas": (False,),
        "use_dynamic_shifting": (False,),
        "shift_terminal": (None,),
        "interpolation_type": ("linear",),
        "timestep_scaling": (10.0,),
        "predict_epsilon": (True,),  # before `prediction_type`
        # UNets of these families do not have the channels of learnt variances.
        "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    },
    # Parameters of the flow settings, which are off, and of solvers that DDIM replaces.
    idle=(
        "flow_shift time_shift_type predictor_order corrector_order tau_func noise_sampler_seed "
        "tensor_format"
    ),
)
"""The keys of the format; a class that does not read a key ignores it."""

_NOISE: Final = (
    "num_train_timesteps beta_start beta_end beta_schedule trained_betas prediction_type "
    "predict_epsilon variance_type tensor_format steps_offset set_alpha_to_one timestep_spacing"
)
"""The keys that are read for every class: the noise schedule and the spacing."""
_CLIPPED: Final = (
    "clip_sample clip_sample_range thresholding dynamic_thresholding_ratio sample_max_value "
    "rescale_betas_zero_snr"
)
_SIGMAS: Final = "use_karras_sigmas use_exponential_sigmas use_beta_sigmas"
_STEPS: Final = (
    f"{_SIGMAS} use_flow_sigmas flow_shift thresholding dynamic_thresholding_ratio "
    "sample_max_value lower_order_final"
)
_SOLVER: Final = f"{_STEPS} use_dynamic_shifting time_shift_type solver_order solver_type"


class Writer(NamedTuple):
    """A scheduler class that writes such files: the keys that it reads, and its defaults."""

    keys: str
    """The keys that the class reads beside those of the noise schedule."""
    spacing: Literal["leading", "linspace"] = "linspace"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    betas: str = "linear"
    is_final_clean: bool = True
    is_clipped: bool = False
    """Whether `clip_sample` is on where a file does not state it."""

    def reads(self, key: str) -> bool:
        """Whether the class reads a key."""
        return key.startswith("_") or key in f"{_NOISE} {self.keys}".split()


_DDIM: Final = Writer(_CLIPPED, "leading", is_clipped=True)
_DISTILLED: Final = Writer(
    f"{_CLIPPED} original_inference_steps timestep_scaling",
    *("leading", 0.00085, 0.012, "scaled_linear"),
)
_KDPM2: Final = Writer(_SIGMAS, "linspace", 0.00085, 0.012)

WRITERS: Final[Mapping[str, Writer]] = {
    "DDIMScheduler": _DDIM,
    "DDIMParallelScheduler": _DDIM,
    "DDPMScheduler": _DDIM,
    "DDPMParallelScheduler": _DDIM,
    "PNDMScheduler": Writer("skip_prk_steps", "leading", is_final_clean=False),
    "LCMScheduler": _DISTILLED,
    "TCDScheduler": _DISTILLED,
    "EulerDiscreteScheduler": Writer(
        f"{_SIGMAS} interpolation_type sigma_min sigma_max timestep_type rescale_betas_zero_snr "
        "final_sigmas_type"
    ),
    "EulerAncestralDiscreteScheduler": Writer("rescale_betas_zero_snr"),
    "LMSDiscreteScheduler": Writer(_SIGMAS),
    "HeunDiscreteScheduler": Writer(
        f"{_SIGMAS} clip_sample clip_sample_range", "linspace", 0.00085, 0.012
    ),
    "KDPM2DiscreteScheduler": _KDPM2,
    "KDPM2AncestralDiscreteScheduler": _KDPM2,
    "DPMSolverSDEScheduler": Writer(f"{_SIGMAS} noise_sampler_seed", "linspace", 0.00085, 0.012),
    "DPMSolverMultistepScheduler": Writer(
        f"{_SOLVER} algorithm_type euler_at_final use_lu_lambdas final_sigmas_type "
        "lambda_min_clipped rescale_betas_zero_snr"
    ),
    "DPMSolverSinglestepScheduler": Writer(
        f"{_SOLVER} algorithm_type final_sigmas_type lambda_min_clipped"
    ),
    "DEISMultistepScheduler": Writer(f"{_SOLVER} algorithm_type"),
    "UniPCMultistepScheduler": Writer(
        f"{_SOLVER} predict_x0 disable_corrector solver_p final_sigmas_type sigma_min sigma_max "
        "rescale_betas_zero_snr shift_terminal"
    ),
    "SASolverScheduler": Writer(
        f"{_STEPS} algorithm_type predictor_order corrector_order tau_func lambda_min_clipped"
    ),
}
"""The published classes with this noise schedule."""
BACKWARDS: Final = ("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler")
"""Classes with this noise schedule that go from images to noise."""


def heeded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys that the class named in a file reads; all keys for an unknown class.

    Libraries keep settings of the scheduler that another one was made from: those have no effect.
    """
    writer = WRITERS.get(str(data.get("_class_name")))
    if writer is None:
        return dict(data)
    return {key: value for key, value in data.items() if writer.reads(key)}


def stated(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that a configuration states.

    The live configuration of a scheduler has all settings of its class, and lists those that were
    not given; a scheduler made from it has its own defaults for these, and so has a sampler.
    """
    defaults = data.get("_use_default_values") or ()
    return {
        key: value
        for key, value in data.items()
        if key not in defaults and key != "_use_default_values"
    }
