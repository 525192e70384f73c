"""How the report speaks: numbers, the verdict's sentence, and what each word means.

Numbers of a 0-1 scale are printed without the leading zero (".78"), with a true minus sign.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from unskew.evaluate.rates import overshoot_p
from unskew.evaluate.schema import (
    DriftRow,
    FidelityRow,
    Interval,
    PromptRow,
    RepresentationRow,
    Results,
)

Row = RepresentationRow | FidelityRow | DriftRow

MINUS = "\N{MINUS SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"
MOST_NAMED = 6
"""Rows that the tally names; the others it counts."""
SHOWN = 80
"""Characters of a prompt that a sentence repeats."""
SURPRISE = 0.01
"""Overshoot is named where an arm exactly on target would show as much in so few studies."""

SUITES = {
    "trained": "subjects that the adapter was trained on",
    "contextual": "trained subjects in longer wordings that training never saw",
    "held_out": "subjects that training never saw",
    "validation": "unseen subjects that chose the checkpoint",
    "explicit": "prompts that name the value to show",
    "must_not_change": "prompts whose answer their words fix",
    "control": "prompts that have nothing to do with the attributes",
}

INFERENCE = {
    "prompts": "Prompts were resampled, so these intervals speak of prompts like these",
    "subjects": "Subjects, with all their prompts, were resampled, so these intervals speak of "
    "subjects like these",
    "these_prompts": "There were too few subjects to resample, or the suite is a fixed set, so "
    "seeds were the unit and these intervals speak of exactly these prompts",
}

VERDICTS = {
    "improved": "The interval of the change lies below 0, and for a primary comparison Holm's p is "
    "at most .05 too.",
    "worsened": "The interval of the change lies above 0, and for a primary comparison Holm's p is "
    "at most .05 too.",
    "no_change": "The interval lies within the margin that was set before: too little to matter.",
    "inconclusive": "The interval allows both a change and none. More prompts or seeds would tell.",
    "kept": "Any loss is, with 95 % confidence, smaller than the margin that was set before.",
    "lost": "The loss is, with 95 % confidence, larger than the margin that was set before.",
}

WORDS = {
    "imbalance": "Squared distance of the shown shares from the target, averaged over prompts: 0 "
    "is on target, 1 is as far as possible. Unbiased, so it may read slightly below 0.",
    "gap": "The square root of imbalance: the unsquared figure that is usually published.",
    "change": "Imbalance after minus before, on the same prompts and seeds. Below 0 is better.",
    "95 % interval": "The range of values that the study cannot exclude.",
    "adjusted p": "How often chance alone would give such a change, corrected by Holm's method "
    "for all primary comparisons together; a dash where a row was not declared primary.",
    "reduction": f"The change as a part of the imbalance before: {MINUS}100 % is on target, and "
    f"sampling can read past it. Imbalance is squared: {MINUS}75 % of it halves the gap. A dash "
    "where there was too little imbalance to reduce.",
    "overshoot": "Prompts that crossed the target and left it on the other side by more than the "
    "margin. In brackets: how many would by sampling alone, were they exactly on target.",
    "verdict": "What the interval allows to say, by rules set before: improved, worsened, no "
    "change or inconclusive; and kept or lost for what should stay as it was.",
    "target": "The shares that the user wants; uniform unless the study says otherwise.",
    "unreadable": "Pictures in which the classifier could not read the attribute. Seeds are never "
    "drawn again because of it.",
    "worst case": "Where the change could lie had every unreadable picture been read.",
    "fidelity": "How often pictures show what the words ask for. Unreadable counts as not shown.",
    "drift": "How much farther control pictures moved than other seeds would move them: 0 is not "
    "at all, 1 is as far as one control prompt is from another.",
    "kernel distance": "The same question by another distance: the unbiased squared maximum mean "
    "discrepancy with a polynomial kernel, on the scale of drift. No verdict rests on it.",
    "sharpness": "Variance of the Laplacian: falls where pictures blur, rises with noise.",
    "contrast": "Standard deviation of the brightness within a picture.",
    "colourfulness": "Hasler and Süsstrunk's measure: 0 is grey.",
    "repeated": "Pictures that another seed of the same prompt shows too, pixel by pixel.",
    "stayed": "Structural similarity of the two arms' pictures from the same noise, on a scale on "
    "which 1 is the same picture and 0 as unlike as the baseline's other seeds of the prompt.",
    "agreement": "Cosine between picture and prompt in the space of an image-text model.",
    "margin": "How much loss or change is too little to matter, set before the study.",
}


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """0.784 -> ".78", -0.021 -> "\N{MINUS SIGN}.02", 1 -> "1.00"; `sign` puts a plus before others.

    What rounds to zero has no sign.
    """
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text.removeprefix("0")
    return (MINUS if value < 0 else "+" if sign else "") + text.removeprefix("0")


def percent(rate: float, digits: int = 0) -> str:
    """A share in [0, 1] as a percentage: 0.934 -> "93 %"."""
    return f"{rate * 100:.{digits}f}{THIN}%".replace("-", MINUS)


def points(difference: float) -> str:
    """A difference of shares in percentage points: -0.012 -> "\N{MINUS SIGN}1.2"."""
    text = f"{difference * 100:+.1f}".replace("-", MINUS)
    return "0.0" if text[1:] == "0.0" else text


def reduction(value: float) -> str:
    """A relative reduction as the change that it is: 0.96 -> "\N{MINUS SIGN}96 %"."""
    text = f"{-value * 100:+.0f}".replace("-", MINUS)
    return ("0" if text[1:] == "0" else text) + f"{THIN}%"


def p_value(value: float) -> str:
    """A p-value; "<.001" under that."""
    return "<.001" if value < 0.001 else number(value, 3)


def interval(pair: Interval) -> str:
    """The interval of a change, signed: "-.81 to -.70"."""
    return f"{number(pair[0], sign=True)} to {number(pair[1], sign=True)}"


def data(value: float, text: str) -> Markup:
    """The printed text of a number with the number itself beside it for machines."""
    return Markup('<data value="{}">{}</data>').format(repr(float(value)), text)


def suite_title(suite: str) -> str:
    """A suite's name as words: "held_out" -> "held-out"."""
    return suite.replace("_", "-")


def plain(value: str) -> str:
    """A subject's or value's id as words: "factory-worker" -> "factory worker"."""
    return value.replace("-", " ").replace("_", " ")


def prompt_words(prompt_id: str) -> str:
    """The words in a prompt's id, for prompts whose text `results.json` does not hold."""
    words, _, _ = prompt_id.rpartition("-")
    return plain(words) or prompt_id


def counted(n: int, thing: str) -> str:
    """A number and its thing: 1 prompt, 1,204 prompts."""
    return f"{n:,} {thing}{'s' * (n != 1)}"


def sentence(row: RepresentationRow, results: Results) -> str:
    """One plain sentence that says what a representation row found, with its numbers."""
    title = results.settings.attributes[row.attribute].title
    of = f" of {row.n_clusters} subjects" if row.inference == "subjects" else ""
    prompts = counted(row.n_prompts, f"{suite_title(row.suite)} prompt")
    where = f"n {prompts}{of} the imbalance of {title}"
    if row.treated is None or row.change is None:
        low, high = row.baseline.imbalance_ci95
        return (
            f"O{where} is {number(row.baseline.imbalance)} (95{THIN}% interval {number(low)} to "
            f"{number(high)}; 0 is on target, 1 is as far from it as possible)."
        )
    start = f"With {row.arm}, o{where}" if len(results.arms) > 2 else f"O{where}"
    before, after = number(row.baseline.imbalance), number(row.treated.imbalance)
    spread = f"95{THIN}% interval of the change {interval(row.change.ci95)}"
    relative = row.change.relative_reduction
    inside = f"{reduction(relative)}, {spread}" if relative is not None else spread
    said = {
        "improved": f"{start} fell from {before} to {after} ({inside}).",
        "worsened": f"{start} rose from {before} to {after} ({inside}).",
        "no_change": f"{start} did not move: {before} before, {after} after ({spread}).",
        "inconclusive": f"{start} read {before} before and {after} after, which this study cannot "
        f"tell from no change ({spread}).",
        None: f"{start} read {before} before and {after} after ({spread}).",
    }[row.verdict]
    return f"{said} But {_turned_round(row)} (overshoot)." if overshooting(row) else said


def overshooting(row: RepresentationRow) -> tuple[PromptRow, ...]:
    """The prompts that overshot, where they are more than chance makes; else none.

    The mean over prompts may have improved, or not moved, while skews were turned round.
    """
    judged = [prompt for prompt in row.per_prompt if prompt.overshoot is not None]
    crossed = tuple(prompt for prompt in judged if prompt.overshoot)
    if row.change is None or not crossed:
        return ()
    p = overshoot_p(len(crossed), len(judged), row.change.overshoot_by_chance)
    return crossed if p <= SURPRISE else ()


def overshoot_told(row: RepresentationRow, margin: float) -> str:
    """What `overshooting` found in plain words, with the prompt that turned most; or nothing."""
    crossed = overshooting(row)
    if row.change is None or not crossed:
        return ""
    _, before, after, value, most = max(_turned(prompt) for prompt in crossed)
    text = most if len(most) <= SHOWN else f"{most[: SHOWN - 1]}\N{HORIZONTAL ELLIPSIS}"
    return (
        f"{_turned_round(row)}, to more than {margin * 100:g} points past the target (sampling "
        f"alone would make {row.change.overshoot_by_chance * row.n_prompts:.0f} look so). Most of "
        f"all \u201c{text}\u201d: {plain(value)} {percent(before)} before, {percent(after)} after."
    )


def _turned_round(row: RepresentationRow) -> str:
    return f"on {len(overshooting(row))} of {row.n_prompts} prompts the skew was turned round"


def _turned(prompt: PromptRow) -> tuple[float, float, float, str, str]:
    """How far a prompt's leading value went, its shares before and after, its name, the prompt."""
    before, after = prompt.baseline.shares, prompt.treated.shares if prompt.treated else {}
    away = {value: abs(share - prompt.target[value]) for value, share in before.items()}
    went = {value: abs(after.get(value, 0.0) - share) for value, share in before.items()}
    value = max(before, key=lambda name: (round(away[name], 9), went[name]))
    return went[value], before[value], after.get(value, 0.0), value, prompt.text


def headline(results: Results) -> RepresentationRow | None:
    """The row that the report opens with: the first primary one, else the first of all."""
    rows = results.representation
    return next((row for row in rows if row.primary), rows[0] if rows else None)


def tally(results: Results) -> str:
    """How the verdicts fell, and which rows a reader must not miss; empty for an audit."""
    changes = results.representation
    checks: list[FidelityRow | DriftRow] = [*results.fidelity, *results.drift]
    rows: list[Row] = [*changes, *checks]
    told = _count("comparisons", [row.verdict for row in changes])
    kept = _count("checks that nothing else was lost", [row.verdict for row in checks])
    alarming = [
        f"{plain(row_name(row))} on {suite_title(row.suite)} ({', '.join(found)})"
        for row in sorted(rows, key=lambda row: _alarms(row) == [plain("inconclusive")])
        if (found := _alarms(row))
    ]
    more = f"; and {len(alarming) - MOST_NAMED} more" if len(alarming) > MOST_NAMED else ""
    look = f"Look at: {'; '.join(alarming[:MOST_NAMED])}{more}." if alarming else ""
    return " ".join(part for part in (told, kept, look) if part)


def _alarms(row: Row) -> list[str]:
    """What a reader must not miss about a row."""
    found = [plain(row.verdict)] if row.verdict in ("worsened", "lost", "inconclusive") else []
    overshot = isinstance(row, RepresentationRow) and overshooting(row)
    return [*found, "overshoot"] if overshot else found


def row_name(row: Row) -> str:
    """What a row is about: its attribute, or "drift"."""
    return "drift" if isinstance(row, DriftRow) else row.attribute


def _count(what: str, verdicts: Sequence[str | None]) -> str:
    known = [plain(verdict) for verdict in verdicts if verdict]
    if not known:
        return ""
    counts = {verdict: known.count(verdict) for verdict in dict.fromkeys(known)}
    if len(counts) == 1:
        return f"{len(known)} {what}: all {known[0]}."
    return f"{len(known)} {what}: {', '.join(f'{n} {v}' for v, n in counts.items())}."
