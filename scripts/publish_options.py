"""What is published, from which runs, under which licence: the settings of `unskew publish`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from unskew.scripts.licences import check_known
from unskew.settings import Settings

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
LONGEST = 2000
"""Characters of a reason."""


class PublishSettings(Settings):
    """Which adapter goes out, with which proof."""

    train: Path = Path("runs/emoji-lora")
    """Folder of the training run whose adapter is published."""
    study: Path | None = Path("runs/emoji-study")
    """Folder of the study that measured this adapter against its bare base; null is no proof, which
    is refused without allow_unproven."""
    out: Path = Path("runs/emoji-bundle")
    """The bundle's folder: made whole, or not at all. A bundle that is there is replaced."""
    license: str | None = None
    """Of the adapter, by the hub's id, such as apache-2.0; "other" with license_name and
    license_link. There is no default: it must be given."""
    license_name: str | None = None
    """Of a license that is "other": what it is called."""
    license_link: str | None = None
    """Of a license that is "other": where its text is."""
    base_license: str | None = None
    """License of the base; null reads it from the base's own card, where it has one."""
    data_license: str | None = None
    """License of the dataset; null reads it from the dataset's `license` column."""
    name: str | None = None
    """What the adapter is called; null makes a name of the attributes and the base's name."""
    base_model: str | None = None
    """The base's id on the hub; null takes the one that the study drew with. Must be given where
    that was a folder or a file."""
    dataset_link: str | None = None
    """Where the dataset or its card can be seen: an https address, or an id on the hub."""
    intended_use: str | None = None
    """What the adapter is for, in a sentence or two; null says it in general words."""
    attribution: tuple[str, ...] = ()
    """Whom to name, beside those that the study and the dataset name."""
    allow_unproven: Annotated[str, Field(max_length=LONGEST)] | None = None
    """Publish in spite of what is missing or failed, for this reason, which the card then gives
    with all that was refused. Null refuses."""
    push: str | None = None
    """Repository "owner/name" on the hub that the bundle is uploaded to, made where it is missing;
    null uploads nothing."""
    private: bool = True
    """Whether a repository that is made is private."""
    commit_message: str = "Publish an adapter with its proof"
    """Of the upload."""
    endpoint: str | None = None
    """Address of another hub than the one that huggingface_hub is set to."""

    @field_validator("license", "base_license", "data_license")
    @classmethod
    def _known(cls, given: str | None) -> str | None:
        return check_known(given)

    @field_validator("allow_unproven")
    @classmethod
    def _says_why(cls, why: str | None) -> str | None:
        if why is not None and len(why.split()) < 2:
            raise ValueError("must say why, in a sentence for the card's readers")
        return why

    @field_validator("push", "base_model")
    @classmethod
    def _on_the_hub(cls, name: str | None) -> str | None:
        if name is not None and not HUB_NAME.fullmatch(name):
            raise ValueError('must be "owner/name" as the hub has it')
        return name

    @field_validator("dataset_link")
    @classmethod
    def _link(cls, link: str | None) -> str | None:
        if link is not None and not (link.startswith("https://") or HUB_NAME.fullmatch(link)):
            raise ValueError('must be an https:// address or "owner/name" on the hub')
        return link
