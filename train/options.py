"""The settings of training. Their values stand in `configs/`; here is what each one means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unskew.settings import Settings

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class LoraSettings(Settings):
    """What is trained: low-rank additions to some of the UNet's modules."""

    rank: Count
    """Width of each addition."""
    alpha: Annotated[float, Field(gt=0)]
    """Its strength: the addition is scaled by alpha / rank."""
    target_modules: (
        Literal["attention", "attention+feed_forward", "all_linear", "with_convolutions"]
        | tuple[str, ...]
    )
    """Which modules: a preset, or a list of ends of module names such as [to_q, ff.net.2].
    all_linear is attention, feed-forward and the projections in and out of each transformer. In
    text encoders attention, and with every other preset feed-forward."""
    components: Annotated[tuple[Literal["unet", "text_encoder"], ...], Field(min_length=1)] = (
        "unet",
    )
    """What gets a LoRA; text_encoder means both of SDXL's. Training it encodes captions in every
    step, so their cache then serves the base's predictions only."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank), which keeps large ranks from fading (Kalajdzievski 2023)."""
    use_dora: bool = False
    """Train the length of each weight's columns apart from their direction (DoRA, Liu et al. 2024).
    Slower; of today's programs only diffusers and peft read it as it was trained."""


class PictureSettings(Settings):
    """How photographs are brought to the size they are trained at. Nothing is left out for it."""

    aspect_buckets: bool = False
    """Train each picture at the size, of about resolution_px squared, whose aspect is nearest to
    its own, so that little is cut away. Off cuts all to the middle square."""
    bucket_step_px: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    """Sides of these sizes are multiples of it; resolution_px must be one. Smaller steps cut less
    away and make more sizes, and the rows of each size in a step are computed apart."""
    bucket_max_aspect: Annotated[float, Field(ge=1)] = 2.5
    """Longer side over shorter side of the most extreme size; longer pictures are cut to it."""
    horizontal_flip: bool = False
    """Show pictures as their mirror images at every other place of a step, by chance. Wrong where
    left and right mean something, as in writing, clocks, uniforms or the side of the road."""


class BatchSettings(Settings):
    """What one optimizer step sees."""

    size: Count
    """Examples in one optimizer step, over all processes and accumulated parts."""
    accumulation: Count
    """Parts that a step is computed in, one after the other, to save memory."""
    neutral_share: Share
    """Share of neutral captions among those of subjects; the rest are explicit."""
    control_share: Share
    """Share of the batch that are controls, kept where the base has them."""
    draws_per_subject: Count
    """Neighbouring draws that go to one subject: 1 spreads a batch over most subjects."""


class ObjectiveSettings(Settings):
    """What the UNet's prediction is pulled to, and at which noise."""

    target: Literal["picture", "explicit"]
    """picture: the usual denoising target. explicit: what the frozen base predicts when it is told
    the picture's values ("a woman mechanic"), so that neutral words come to mean every value; the
    same expectation where the base follows its words, at far less variance."""
    timesteps: Literal["uniform", "high_noise", "logit_normal"]
    """uniform: every timestep equally often. high_noise: high_noise_share of the examples at
    high_noise_from and over, where such attributes begin to show; the rest uniform. logit_normal:
    most often around one place of the schedule, seldom at its ends (Esser et al. 2024)."""
    high_noise_share: Share
    """Share of examples that are drawn from the high-noise timesteps only."""
    high_noise_from: Share
    """Where high noise begins, as a share of the schedule: 0.7 is timestep 700 of 1000."""
    logit_mean: Finite = 0.0
    """Of logit_normal, the place: the logit of a share of the schedule. 0 is its middle, 1 is
    timestep 731 of 1000, below 0 is less noise."""
    logit_std: Annotated[Finite, Field(gt=0)] = 1.0
    """Of logit_normal, how far examples lie from that place, in logits."""
    loss_weights: Literal["none", "min_snr", "soft_min_snr"] = "none"
    """How a row's loss is weighted by its noise. none: all alike. min_snr (Hang et al. 2023) and
    soft_min_snr (Crowson et al. 2024): by the signal-to-noise ratio, at most snr_gamma, of the
    clean picture's error. Where the base predicts v, both all but mute high noise, where such
    attributes are decided; where it predicts the noise, they leave high noise at 1."""
    snr_gamma: Annotated[Finite, Field(gt=0)] = 5.0
    """Of min_snr and soft_min_snr: the signal-to-noise ratio from which on a clean picture's error
    counts no more; Hang et al. take 5."""
    noise_offset: Annotated[Finite, Field(ge=0)] = 0.0
    """Standard deviation of what is added to the noise of a whole channel of a latent, so that
    very dark and very bright pictures are learned (Guttenberg 2023 takes 0.1). 0 adds nothing."""
    zero_terminal_snr: bool = False
    """Train on the base's schedule stretched until its last step is pure noise (Lin et al. 2024).
    Only where the base predicts v; the adapter must then be used on that schedule too
    (rescale_betas_zero_snr true, timestep_spacing trailing)."""
    caption_dropout: Share = 0.0
    """Share of examples whose caption is left empty, as classifier-free guidance needs it; 0
    keeps every caption."""


class OptimizerSettings(Settings):
    """How weights follow the gradient, with a linear warm-up and a cosine fall to zero."""

    kind: Literal["adamw", "adamw_8bit", "prodigy"] = "adamw"
    """adamw: torch's own. adamw_8bit: bitsandbytes', whose memory of each larger weight takes two
    bytes instead of eight. prodigy: finds its own rate (Mishchenko and Defazio 2023)."""
    learning_rate: Annotated[float, Field(gt=0)]
    """The highest rate, reached after the warm-up. Of prodigy a factor on the rate that it finds:
    set it to 1.0 there."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps over which the rate rises."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled decay of the LoRA's weights."""
    clip_norm: Annotated[float, Field(gt=0)]
    """Largest L2 norm of a step's gradient; a longer one is scaled down to it."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the running average of weights that a step keeps: 0.999 averages over the last
    thousand steps or so. 0 keeps no average."""


class MemorySettings(Settings):
    """What is given up so that training fits, or for speed."""

    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Keep only what goes into each block of the UNet, and of text encoders that are trained, and
    compute the rest again on the way back: far less memory, a third more time. auto: on a GPU,
    where what a step needs is estimated at more than is free; which is said. Never on a CPU."""
    quantize: Literal["none", "nf4", "int8"] = "none"
    """Keep the frozen weights of the base's linear layers in 4 bits (nf4, Dettmers et al. 2023) or
    8 (int8, Dettmers et al. 2022); those that are told the timestep, and convolutions, stay. Text
    encoders only where they are trained. Less memory, less speed, and a base that is a little off
    from what it was: prefer batch.accumulation where that is enough. int8 holds on to what goes
    into its layers, so gradient_checkpointing saves less there."""
    compile: Literal["off", "regional"] = "off"
    """regional: compile the UNet's transformer blocks. Faster steps after minutes of compiling, so
    for long runs; where it fails, training goes on without. Rounds otherwise than off does."""


class CheckpointSettings(Settings):
    """Where a stopped run can go on from."""

    every: Count
    """Optimizer steps between checkpoints; the last step always gets one."""
    keep: Count
    """How many of the newest ones stay."""


class SampleSettings(Settings):
    """Pictures drawn while training, on the same noise every time."""

    every: Annotated[int, Field(ge=0)]
    """Optimizer steps between sample grids; 0 draws none. One is drawn before the first step."""
    prompts: tuple[str, ...]
    """One row of the grid each."""
    seeds: Count
    """Pictures in a row: seeds 0, 1, ..."""
    steps: Count
    """Denoising steps a picture."""
    guidance: Annotated[float, Field(ge=1)]
    """Classifier-free guidance scale; 1 switches it off."""


class ValidationSettings(Settings):
    """A look, while training, at subjects that are not trained on.

    The held-out suite is never read: what training has looked at proves nothing.
    """

    every: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps between readings, and one after the last step; 0 takes none, and nothing
    below then has a meaning."""
    prompts: Path = Path("prompts/emoji.yaml")
    """A prompt file; a relative path that does not exist is looked up in Unskew's configs."""
    suite: str = "validation"
    """The suite in it that is drawn and read. It must be neutral, and share no subject with the
    dataset or with the file's held_out suite."""
    seeds: Annotated[int, Field(ge=2)] = 8
    """Pictures a prompt, from seeds 0, 1, ...; an unbiased imbalance needs at least 2."""
    steps: Count = 12
    """Denoising steps a picture."""
    guidance: Annotated[float, Field(ge=1)] = 1.5
    """Classifier-free guidance scale, the one that the studies use; 1 switches it off."""
    batch: Count = 64
    """Pictures drawn together; part of what makes a picture. Processes share whole batches."""
    exemplars: Path = Path("runs/emoji-exemplars")
    """Labelled pictures that the classifier reads with; `unskew data` writes Emoji World's."""
    loss_rows: Count = 6
    """Neutral rows of the dataset, of each value of each attribute, whose loss is taken too."""
    loss_timesteps: Count = 4
    """Timesteps that each of these rows is taken at, evenly spaced over the schedule."""
    choose: Literal["last", "best"] = "last"
    """Which weights the adapter is made of. last: those after the last step. best: those of the
    reading with the lowest imbalance, the mean over the suite's attributes; of equal ones the
    later. A reading that left out too many unreadable pictures is never the best."""
    stop_at: Share = 0.0
    """Training ends early once every attribute's imbalance is at or under this in stop_held
    readings in a row; 0 never ends it."""
    stop_held: Count = 2
    """Readings in a row that make a target held rather than met by chance."""


class TrainSettings(Settings):
    """How a LoRA is trained so that neutral prompts show the target's rates."""

    base: str
    """A diffusers folder; "emoji-world" for the embedded base; a hub's "org/name"; or a single
    .safetensors file with the whole model, which needs base_config."""
    base_revision: str | None = None
    """Commit, tag or branch of a base on the hub; null is its main branch. Only a commit is the
    same base next year."""
    base_config: Path | None = None
    """Of a single-file base: a diffusers folder that says how it is put together, with tokenizer
    and schedule. It is unpacked into the cache once."""
    dataset: Path
    """An imagefolder with metadata.jsonl, as `unskew data` writes it."""
    out: Path
    """The run's folder; the same command again goes on where it stopped."""
    cache: Path
    """Where encoded pictures and captions are kept between runs; found again by their content."""
    cache_only: bool = False
    """Encode what the cache lacks, say how much that was, and stop before any training."""
    attributes: tuple[str, ...]
    """The attributes whose values are dealt at their target's rates."""
    targets: dict[str, dict[str, float]] = {}
    """Attribute -> value -> share at which it is dealt, where that is not the attribute's target:
    to ask for other rates, or to make up for what comes out too often by dealing it less."""
    seed: int
    """All chance in training follows from this, the step and the place in the batch."""
    steps: Count
    """Optimizer steps."""
    resolution_px: Annotated[int, Field(ge=8, multiple_of=8)]
    """Side of the square training pictures; others are cropped to the middle and resized, unless
    pictures.aspect_buckets is on."""
    pictures: PictureSettings = PictureSettings()
    dtype: Literal["auto", "bf16", "fp16", "fp32"]
    """Precision of the frozen base and of autocast; the LoRA itself is always fp32. auto takes bf16
    where this device computes it fast, and fp16 on a GPU that has no bf16. In fp16 the loss is
    scaled up so that small gradients survive, and a step whose gradient overflows is left out."""
    memory: MemorySettings = MemorySettings()
    log_every: Count
    """Optimizer steps between lines of metrics."""
    tracker: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"]
    """Where metrics go besides metrics.jsonl, by the name that accelerate knows."""
    resume: str
    """auto: from this folder's newest whole checkpoint, if there is one. never: from the start;
    this folder's checkpoints are deleted. Else the folder of a checkpoint, which must exist."""
    lora: LoraSettings
    batch: BatchSettings
    objective: ObjectiveSettings
    optimizer: OptimizerSettings
    checkpoints: CheckpointSettings
    samples: SampleSettings
    validation: ValidationSettings = ValidationSettings()
