"""Parts of a representation row that are computed apart: readings in, a piece of the file out.

Axes: a arms (baseline, treated), p prompts, c clusters of prompts, s seeds, k attribute values.
"""

from __future__ import annotations

from collections.abc import Sequence

from unskew.evaluate.cells import Unit
from unskew.evaluate.power import observed_variance, seeds_variance, settling
from unskew.evaluate.rates import paired_rate_change
from unskew.evaluate.schema import Needed, Transitions, UnreadableChange
from unskew.evaluate.spread import mean_sums, prompt_sums
from unskew.evaluate.stats import Estimate, Floats, Ints, cluster_means
from unskew.evaluate.transitions import transitions


def transition_table(codes_aps: Ints, values: Sequence[str]) -> Transitions:
    """Which value became which, by name."""
    baseline_ps, treated_ps = codes_aps
    found = transitions(baseline_ps, treated_ps, len(values))
    counts = [dict(zip(values, row, strict=True)) for row in found.counts_kk.tolist()]
    return Transitions(
        counts=dict(zip(values, counts, strict=True)),
        became_unreadable=dict(zip(values, found.lost_k.tolist(), strict=True)),
        became_readable=dict(zip(values, found.gained_k.tolist(), strict=True)),
        unread=found.unread,
        stuart_maxwell_p=found.stuart_maxwell_p,
    )


def unreadable_change(codes_aps: Ints, unit: Unit, same_pictures: bool) -> UnreadableChange:
    """Change of the unreadable rate; [0, 0] where both arms show the same pictures."""
    if same_pictures:
        return UnreadableChange(value=0.0, ci95=(0.0, 0.0))
    baseline_ps, treated_ps = codes_aps < 0
    found = paired_rate_change(baseline_ps, treated_ps, unit.clusters_p, unit.fixed)
    return UnreadableChange(value=found.value, ci95=(found.lo, found.hi))


def needed_by(
    change: Estimate,
    change_p: Floats,
    codes_aps: Ints,
    target_pk: Floats,
    unit: Unit,
    margin: float,
) -> Needed | None:
    """What would settle an inconclusive row, from how its own prompts and seeds vary."""
    if unit.inference == "these_prompts":
        sums = mean_sums(codes_aps, target_pk, unit.weights_p)
        variance = seeds_variance(sums, unit.n_seeds)
        seeds = settling(change.value, variance, margin, None, unit.n_seeds).seeds
        return Needed(unit="seeds", count=seeds, seeds=seeds) if seeds else None
    sums = prompt_sums(codes_aps, target_pk)
    change_c = cluster_means(change_p, unit.clusters_p)
    variance = observed_variance(change_c, sums, unit.clusters_p, unit.n_seeds)
    found = settling(change.value, variance, margin, unit.n_clusters, unit.n_seeds)
    if found.prompts is None:
        return None
    return Needed(unit=unit.inference, count=found.prompts, seeds=found.seeds)
