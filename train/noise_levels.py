"""How much noise a row gets, how its loss is weighted for it, and the schedule behind both.

Everything here is a function of what is passed in: chance comes as uniforms and normals that the
caller drew, so that it stays a function of the seed, the step and the place in the batch.

Shape legend: b rows, c latent channels, h w latent height and width, t timesteps of the schedule.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

from unskew.errors import UserError
from unskew.train.options import ObjectiveSettings

NO_SIGNAL = 2.0**-24
"""Signal variance that counts as none: some of diffusers' schedulers put it in the place of 0."""


def snr_b(alphas_cumprod_t: Tensor, timesteps_b: Tensor) -> Tensor:
    """(b,) signal-to-noise ratio, 0 (pure noise) to inf (no noise).

    alpha_bar / (1 - alpha_bar) of a variance-preserving schedule: Kingma et al. 2021
    (arXiv:2107.00630), eq. 2.
    """
    alpha_bars_b = alphas_cumprod_t.to(timesteps_b.device)[timesteps_b].float()
    return alpha_bars_b / (1 - alpha_bars_b)


def loss_weights_b(
    alphas_cumprod_t: Tensor, timesteps_b: Tensor, prediction_type: str, settings: ObjectiveSettings
) -> Tensor:
    """(b,) factor on each row's loss, finite and >= 0; 1 everywhere for "none".

    Raises UserError for a prediction type other than epsilon and v_prediction.
    """
    if settings.loss_weights == "none":
        return torch.ones(len(timesteps_b), device=timesteps_b.device)
    if prediction_type not in ("epsilon", "v_prediction"):
        raise UserError(
            f"objective.loss_weights {settings.loss_weights!r} is for bases that predict epsilon "
            f"or v_prediction, this one predicts {prediction_type!r}: set it to 'none'"
        )
    weights = min_snr_weights if settings.loss_weights == "min_snr" else soft_min_snr_weights
    return weights(snr_b(alphas_cumprod_t, timesteps_b), settings.snr_gamma, prediction_type)


def min_snr_weights(ratios_b: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """(b,) min-SNR-gamma at these signal-to-noise ratios: Hang et al. 2023 (arXiv:2303.09556).

    min(SNR, gamma) on the clean picture's error: over SNR on the noise's (1 at SNR 0, its limit),
    over SNR + 1 on the velocity's (0 at SNR 0).
    """
    if prediction_type == "epsilon":
        return (gamma / ratios_b).clamp(max=1)
    return ratios_b.clamp(max=gamma) / (ratios_b + 1)


def soft_min_snr_weights(ratios_b: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """(b,) soft-min-SNR at these ratios: Crowson et al. 2024 (arXiv:2401.11605).

    1 / (1 / SNR + 1 / gamma) on the clean picture's error: over SNR on the noise's (1 at SNR 0),
    over SNR + 1 on the velocity's (0 at SNR 0).
    """
    on_noise_b = gamma / (ratios_b + gamma)
    if prediction_type == "epsilon":
        return on_noise_b
    return on_noise_b / (1 + 1 / ratios_b)  # SNR / (SNR + 1) in a form that inf does not break


def timesteps(uniforms_b2: Tensor, settings: ObjectiveSettings, num_timesteps: int) -> Tensor:
    """(b,) timesteps 0 .. num_timesteps - 1 from two uniforms in [0, 1) a row.

    The first says which range the timestep comes from (only high_noise has two), the second where
    in it.
    """
    if settings.timesteps == "logit_normal":
        shares_b = logit_normal_b(uniforms_b2[:, 1], settings.logit_mean, settings.logit_std)
        return (shares_b * num_timesteps).long().clamp(max=num_timesteps - 1)
    first = torch.zeros(len(uniforms_b2))
    if settings.timesteps == "high_noise":
        high = uniforms_b2[:, 0] < settings.high_noise_share
        first = torch.where(high, settings.high_noise_from * num_timesteps, first)
    drawn = first + uniforms_b2[:, 1] * (num_timesteps - first)
    return drawn.long().clamp(max=num_timesteps - 1)


def logit_normal_b(uniforms_b: Tensor, mean: float, std: float) -> Tensor:
    """(b,) shares of the schedule in [0, 1] whose logits are normal, by the inverse of their CDF.

    Esser et al. 2024 (arXiv:2403.03206), eq. 19; 1 is pure noise there and here.
    """
    return torch.sigmoid(mean + std * torch.special.ndtri(uniforms_b.double()))


def offset_noise(noise_bchw: Tensor, normals_bc11: Tensor, strength: float) -> Tensor:
    """Noise whose channels are each moved as a whole by a normal of this standard deviation.

    Guttenberg 2023, "Diffusion with offset noise". 0 gives the noise back.
    """
    return noise_bchw + strength * normals_bc11 if strength else noise_bchw


def dropped_b(uniforms_b: Tensor, share: float) -> Tensor:
    """(b,) whether a row's caption is left empty, from a uniform in [0, 1) each; 0 drops none.

    Ho and Salimans 2022 (arXiv:2207.12598), algorithm 1.
    """
    return uniforms_b < share


def check_schedule(scheduler: SchedulerMixin, settings: ObjectiveSettings) -> None:
    """Raise UserError where the base's schedule cannot be learned on as the settings ask.

    A UNet that predicts the noise is told it at a signal-to-noise ratio of 0: its input is the
    target there, and the picture can never be found from it.
    """
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise UserError(f"the base's scheduler predicts {kind!r}; allowed: epsilon, v_prediction")
    if kind == "v_prediction":
        return
    reason = "predicts the noise (epsilon), of which nothing can be learned where all is noise"
    if settings.zero_terminal_snr:
        raise UserError(
            f"objective.zero_terminal_snr is true, but the base {reason}: set it to false, or take "
            "a base whose prediction_type is v_prediction"
        )
    if float(scheduler.alphas_cumprod[-1]) <= NO_SIGNAL:
        raise UserError(
            f"the base's schedule ends without signal, but it {reason}: set rescale_betas_zero_snr "
            "to false in its scheduler/scheduler_config.json, or prediction_type to v_prediction "
            "if that is what it was trained for"
        )


def training_schedule(scheduler: SchedulerMixin, settings: ObjectiveSettings) -> DDIMScheduler:
    """The base's noise schedule for training, rescaled if that is asked for.

    A DDIM scheduler whatever the base samples with: some of diffusers' schedulers scale a noisy
    picture as their sampler wants it, and not all know the velocity. Raises as `check_schedule`.
    """
    check_schedule(scheduler, settings)
    if settings.zero_terminal_snr:
        return rescaled(scheduler)
    return DDIMScheduler.from_config(scheduler.config)


def rescaled(scheduler: SchedulerMixin) -> DDIMScheduler:
    """The same schedule with its last step at SNR 0, for training and for sampling alike.

    Lin et al. 2024 (arXiv:2305.08891), algorithm 1, as diffusers has it; their section 3.3 asks
    for trailing timesteps, which begin at the last one. It becomes a DDIM scheduler whatever it
    was: some of diffusers' have no such option, and some scale the picture differently.
    """
    return DDIMScheduler.from_config(
        scheduler.config,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,  # DDIM's default is for pixels, whose range is known; latents have none
    )
