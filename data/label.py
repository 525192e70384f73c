"""Labels: what a picture shows, by its owner's columns or by a classifier; else it is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unskew.data.build_setup import Setup
from unskew.data.gather import Field as Said
from unskew.data.gather_folder import CLASS
from unskew.data.looking import Look
from unskew.data.rows import Row
from unskew.data.sources import SPLITS, AnySource, LabelColumn, name_of


def row_of(
    name: str,
    look: Look,
    file: str,
    fields: Mapping[str, Said],
    source: AnySource,
    setup: Setup,
) -> Row | str:
    """A picture that was kept, with the labels of its columns; or why it has no place."""
    columns = source.columns
    subject = _subject(fields, source)
    if subject is None:
        return (
            f"no subject: set subject of its source, or a column for columns.subject "
            f"({columns.subject})"
        )
    labels: dict[str, str | None] = {}
    labelled_by: dict[str, str] = {}
    for attribute in setup.applies(subject):
        column = columns.labels.get(attribute, LabelColumn(column=attribute))
        value = value_of(fields.get(column.column), column, setup.attributes[attribute].values)
        labels[attribute] = value
        if value is not None:
            labelled_by[attribute] = f"column {column.column}"
    caption = fields.get(columns.caption)
    return Row(
        name=name,
        file=Path(file),
        subject=subject,
        caption=None if caption is None else " ".join(str(caption).split()),
        labels=labels,
        source=str(fields.get(columns.source, name_of(source))),
        license=str(fields.get(columns.license, source.license)),
        sha256=look.sha256,
        split=split_of(fields.get(columns.split)),
        suffix=look.suffix,
        plain=look.plain,
        labelled_by=labelled_by,
    )


def value_of(said: Said | None, column: LabelColumn, values: tuple[str, ...]) -> str | None:
    """The attribute's value that a column's word means; None where it means none of them."""
    if said is None:
        return None
    word = _plain(said)
    known = {_plain(key): value for key, value in column.map.items()} if column.map else {}
    value = known.get(word) if column.map else next((v for v in values if _plain(v) == word), None)
    return value if value in values else None


def split_of(said: Said | None) -> str | None:
    """train, validation or held_out; None where nothing or something else stands there."""
    return None if said is None else SPLITS.get(_plain(said))


def _subject(fields: Mapping[str, Said], source: AnySource) -> str | None:
    given = fields.get(source.columns.subject)
    labelled = {column.column for column in source.columns.labels.values()}
    if given is None and source.subject is None and CLASS not in labelled:
        given = fields.get(CLASS)
    if given is None:
        return source.subject
    known = {_plain(word): subject for word, subject in source.subjects.items()}
    return known.get(_plain(given), str(given))


def _plain(word: object) -> str:
    return " ".join(str(word).casefold().split())
