"""Croissant: a description of a dataset that search engines and loaders read (mlcommons.org).

Version 1.1 of the format and 1.0 of its responsible-AI fields. Written without its library; the
tests validate it with that (the extra `[croissant]`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CROISSANT = "croissant.json"
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
FORMATS = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True)
class Description:
    """What is said of a dataset, in words."""

    name: str
    text: str
    license: str
    """An SPDX name, an address, or "unknown"."""
    language: str
    keywords: tuple[str, ...]
    columns: Mapping[str, str]
    """Column -> what it says."""
    collection: str
    """Where the pictures come from, and who agreed."""
    labels: str
    """Who or what gave the labels."""
    label_tools: tuple[str, ...]
    """The classifiers among them."""
    processing: tuple[str, ...]
    biases: tuple[str, ...]
    limits: tuple[str, ...]
    sensitive: tuple[str, ...]
    uses: tuple[str, ...]
    impact: str


def croissant(
    said: Description, metadata: str, content: bytes, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The JSON-LD of a dataset folder whose `metadata` file has this content and these rows."""
    columns = list(rows[0]) if rows else []
    suffixes = sorted({str(row["file_name"]).rpartition(".")[2] for row in rows})
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": said.name,
        "description": said.text,
        "license": said.license,
        "inLanguage": said.language,
        "keywords": list(said.keywords),
        "version": "1.0.0",
        "rai:dataCollection": said.collection,
        "rai:dataAnnotationProtocol": said.labels,
        "rai:machineAnnotationTools": list(said.label_tools),
        "rai:dataPreprocessingProtocol": list(said.processing),
        "rai:dataBiases": list(said.biases),
        "rai:dataLimitations": list(said.limits),
        "rai:personalSensitiveInformation": list(said.sensitive),
        "rai:dataUseCases": list(said.uses),
        "rai:dataSocialImpact": said.impact,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": metadata,
                "name": metadata,
                "contentUrl": metadata,
                "contentSize": f"{len(content)} B",
                "encodingFormat": "application/jsonlines",
                "sha256": hashlib.sha256(content).hexdigest(),
            },
            {
                "@type": "cr:FileSet",
                "@id": "pictures",
                "name": "pictures",
                "includes": [f"images/*.{suffix}" for suffix in suffixes],
                "encodingFormat": [FORMATS.get(s, "application/octet-stream") for s in suffixes],
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                "description": "One picture with one caption each; several rows share a picture.",
                "field": [_column(name, said.columns, metadata, rows) for name in columns],
            }
        ],
    }


def _column(
    name: str, words: Mapping[str, str], metadata: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    kinds = {type(row.get(name)) for row in rows} - {type(None)}
    kind = "sc:Float" if kinds == {float} else "sc:Integer" if kinds == {int} else "sc:Text"
    return {
        "@type": "cr:Field",
        "@id": f"rows/{name}",
        "name": name,
        "description": words.get(name, name),
        "dataType": kind,
        "source": {"fileObject": {"@id": metadata}, "extract": {"column": name}},
    }
