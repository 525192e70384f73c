"""What `unskew data build` is asked for."""

from __future__ import annotations

from unskew.data.assembly_options import AssemblySettings
from unskew.data.label_options import LabelSettings
from unskew.data.screen import ScreenSettings
from unskew.data.sources import AnySource
from unskew.data.synthesis_options import SynthesisSettings


class BuildSettings(AssemblySettings):
    """A balanced, captioned dataset from pictures of yours, or from none."""

    sources: tuple[AnySource, ...] = ()
    """Where pictures come from; none where the base draws all of them."""
    subjects: dict[str, tuple[str, ...]] = {}
    """Subject -> the attributes that apply to it, [] for a control, which has none. To a subject
    that is not here all of balance.attributes apply. Those here are drawn where there is not one
    picture of them, with balance.by synthesis."""
    screen: ScreenSettings = ScreenSettings()
    """What a picture must be to be kept."""
    label: LabelSettings = LabelSettings()
    """Who says what pictures show where their metadata does not."""
    synthesis: SynthesisSettings | None = None
    """How the base draws what is missing; needed where balance.by is synthesis."""
