"""How a dataset is put together from its pictures: the settings."""

from __future__ import annotations

from pathlib import Path

from unskew.data.balance_options import BalanceSettings
from unskew.data.caption_options import CaptionSettings
from unskew.data.card_own import CardSettings
from unskew.data.splits import SplitSettings
from unskew.settings import Settings


class AssemblySettings(Settings):
    """Balance, captions, splits and card of a dataset."""

    out: Path
    """The training folder, an imagefolder; what is kept from training goes beside it, into
    OUT-validation and OUT-held-out."""
    balance: BalanceSettings = BalanceSettings()
    """What the pictures that are trained on are balanced to."""
    splits: SplitSettings = SplitSettings()
    """What is kept from training."""
    captions: CaptionSettings = CaptionSettings()
    """How pictures are captioned."""
    card: CardSettings = CardSettings()
    """What the card says."""
    seed: int = 0
    """Decides which pictures are taken or kept from training, and which templates caption them."""
