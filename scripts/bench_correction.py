"""How well the corrections work, where the truth is known and the classifier errs at a known rate.

    python scripts/bench_correction.py                                 # made-up prompts
    python scripts/bench_correction.py --run runs/emoji-study-proof    # Emoji World's own shares
    python scripts/bench_correction.py --run ... --write               # into docs/calibration.md

A population of prompts has a known share of one value in two arms: made up, or the oracle readings
of a real run, woman against not. Each repeat draws prompts, seeds and labels anew, turns readings
over at the known rates (Se .90, Sp .85), corrects them as a study does, and compares with the
truth: a share with that of the pictures drawn, an interval with that of the population.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unskew.errors import UserError
from unskew.evaluate.correction import Arm, corrected_change, corrected_shares
from unskew.evaluate.labelled_shares import LabelledArm, labelled_shares, share_shift
from unskew.evaluate.schema import load_results
from unskew.evaluate.stats import Estimate, Floats, Ints, count_values, imbalance
from unskew.runs import write_text_atomic
from unskew.settings import Settings, config_path, resolve, run_program

SENSITIVITY, SPECIFICITY = 0.90, 0.85
START, END = "<!-- bench_correction: begin -->", "<!-- bench_correction: end -->"
PARITY = np.array([0.5, 0.5])


class CorrectionSettings(Settings):
    """What is simulated, and how often."""

    run: Path | None = None
    """A study of two or more arms whose presentation readings are taken for the truth; null makes
    prompts up."""
    value: str = "woman"
    """The value of presentation that is told from all others."""
    suites: tuple[str, ...] = ()
    """Suites of the run; empty is all neutral ones."""
    repeats: int = 1000
    """Studies a line of the table."""
    labels: tuple[int, ...] = (150, 300, 1200)
    """Labelled pictures an arm."""
    seeds: int = 40
    """Pictures a prompt and arm, drawn from the population in each repeat."""
    prompts: int = 60
    """Prompts of the made-up study, drawn likewise; a run's has as many as its suite."""
    doc: Path = Path("docs/calibration.md")
    """Where the table goes."""
    write: bool = False
    """Replace the table in `doc`."""


@dataclass(frozen=True)
class Population:
    """Prompts with known shares: (p, cells, 2 arms) truths, 0 where a woman is shown, else 1."""

    name: str
    truth_pca: Ints
    n_prompts: int
    n_seeds: int

    @property
    def share_pa(self) -> Floats:
        """(P, 2) true share of women."""
        share: Floats = (self.truth_pca == 0).mean(1)
        return share

    @property
    def change(self) -> float:
        """True change in imbalance, (2p - 1)^2, mean over prompts."""
        imbalance_pa = (2 * self.share_pa - 1) ** 2
        return float((imbalance_pa[:, 1] - imbalance_pa[:, 0]).mean())


def made_up(settings: CorrectionSettings) -> Population:
    """5,000 prompts whose baseline shows few women, and a treated arm half way to parity."""
    rng = np.random.default_rng(1)
    share = rng.beta(1, 4, 5000)
    cell = rng.random((5000, 200))
    noise = np.where(rng.random((5000, 200)) < 0.7, cell, rng.random((5000, 200)))
    arms = [cell >= share[:, None], noise >= (0.5 + 0.5 * (share - 0.5))[:, None]]
    return Population(
        "made-up", np.stack(arms, -1).astype(np.int64), settings.prompts, settings.seeds
    )


def of_run(settings: CorrectionSettings, run: Path) -> list[Population]:
    """Each suite and treated arm of a run."""
    results = load_results(run / "results.json")
    readings = pd.read_parquet(run / "readings.parquet")
    readings = readings[(readings["attribute"] == "presentation") & readings["readable"]]
    neutral = [name for name, suite in results.settings.suites.items() if suite.role == "neutral"]
    found = []
    for suite in settings.suites or neutral:
        table = readings[readings["suite"] == suite].pivot_table(
            index=["prompt_id", "seed"], columns="arm", values="value", aggfunc="first"
        )
        for arm in [name for name in results.arms if name != results.baseline][:1]:
            pairs = table[[results.baseline, arm]].dropna()
            sizes = pairs.groupby("prompt_id").size()
            n = int(sizes.max())
            whole = pairs[pairs.index.get_level_values(0).isin(sizes.index[sizes == n])]
            truth = (whole.to_numpy() != settings.value).astype(np.int64).reshape(-1, n, 2)
            found.append(Population(f"{suite}, {arm}", truth, len(truth), settings.seeds))
    if not found:
        raise UserError(f"{run} has no treated arm with presentation on a neutral suite")
    return found


@dataclass
class Tally:
    """Errors and hits of one figure over all repeats."""

    errors: list[float]
    covered: list[bool]

    def add(self, estimate: Estimate | float, truth: float) -> None:
        """One repeat's estimate of a truth."""
        if isinstance(estimate, Estimate):
            self.errors.append(estimate.value - truth)
            self.covered.append(estimate.lo <= truth <= estimate.hi)
        else:
            self.errors.append(float(estimate) - truth)


def simulate(population: Population, n_labels: int, repeats: int, seed: int) -> dict[str, Tally]:
    """Every figure's tally over repeats of a study with this many labels an arm."""
    rng = np.random.default_rng(seed)
    found: dict[str, Tally] = {}

    def add(name: str, estimate: Estimate | float, truth: float) -> None:
        found.setdefault(name, Tally([], [])).add(estimate, truth)

    n_cells = population.truth_pca.shape[1]
    for _ in range(repeats):
        prompts = rng.integers(len(population.truth_pca), size=population.n_prompts)
        cells = rng.integers(n_cells, size=(population.n_prompts, population.n_seeds))
        truth_aps = np.moveaxis(population.truth_pca[prompts[:, None], cells], -1, 0)
        right = rng.random(truth_aps.shape) < np.where(truth_aps == 0, SENSITIVITY, SPECIFICITY)
        read_aps = np.where(right, truth_aps, 1 - truth_aps)
        _study(add, population, truth_aps, read_aps, n_labels, rng)
    return found


def _study(
    add: Callable[[str, Estimate | float, float], None],
    population: Population,
    truth_aps: Ints,
    read_aps: Ints,
    n_labels: int,
    rng: np.random.Generator,
) -> None:
    n_prompts = truth_aps.shape[1]
    clusters_p = np.arange(n_prompts)
    target_pk = np.tile(PARITY, (n_prompts, 1))
    size = truth_aps[0].size
    shares, parts = [], []
    for truth_ps, read_ps in zip(truth_aps, read_aps, strict=True):
        labelled = _sampled(truth_ps.shape, n_labels, rng)
        labels = np.where(labelled.reshape(-1, 1), np.eye(2)[truth_ps.ravel()], np.nan)
        picture = LabelledArm(
            codes_n=read_ps.ravel(),
            weight_n=np.full(size, 1 / size),
            clusters_n=np.repeat(clusters_p, truth_ps.shape[1]),
            labels_nk=labels,
            label_weight_n=np.ones(size),
        )
        shares.append(labelled_shares(picture, n_prompts))
        counts = np.zeros((2, 2))
        np.add.at(counts, (truth_ps[labelled], read_ps[labelled]), 1)
        parts.append(Arm(read_ps, counts))
    pooled = parts[0].calibration_tr + parts[1].calibration_tr
    oracle = [float((truth_ps == 0).mean()) for truth_ps in truth_aps]
    for n, arm in enumerate(("baseline", "treated")):
        population_share = float(population.share_pa[:, n].mean())
        add(f"{arm} share, raw", float((read_aps[n] == 0).mean()), oracle[n])
        add(f"{arm} share, labels (PPI++)", float(shares[n].shares[0].value), oracle[n])
        matrix = corrected_shares(Arm(read_aps[n], pooled), target_pk, clusters_p)[0]
        add(f"{arm} share, matrix", float(matrix), oracle[n])
        add(f"{arm} share, interval", shares[n].shares[0], population_share)
    shift = float(population.share_pa[:, 1].mean() - population.share_pa[:, 0].mean())
    add("shift, interval", share_shift(*shares)[0], shift)
    raw = [imbalance(count_values(read, 2), target_pk).mean() for read in read_aps]
    add("change in imbalance, raw", float(raw[1] - raw[0]), population.change)
    for name, shared in (("one matrix", True), ("a matrix an arm", False)):
        arms = [Arm(part.codes_ps, pooled) for part in parts] if shared else parts
        if min(float(arm.calibration_tr.sum(1).min()) for arm in arms) < 5:
            continue
        estimate = corrected_change(
            arms[0], arms[1], target_pk, clusters_p, shared=shared, fixed=False, seed=0
        )
        add(f"change in imbalance, {name}", estimate, population.change)


def _sampled(
    shape: tuple[int, ...], n: int, rng: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(P, S) n pictures, as many of every prompt as of the next, give or take one."""
    each, rest = divmod(min(n, shape[0] * shape[1]), shape[0])
    wanted = each + (np.arange(shape[0]) < rest)[rng.permutation(shape[0])]
    rank = rng.random(shape).argsort(1).argsort(1)
    chosen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = rank < wanted[:, None]
    return chosen


def table(settings: CorrectionSettings) -> str:
    """The table, in Markdown."""
    populations = of_run(settings, settings.run) if settings.run else [made_up(settings)]
    lines = [
        "| population | labels an arm | figure | mean error | root mean square | within 2 points "
        "| interval covers |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for number, population in enumerate(populations):
        for n in settings.labels:
            found = simulate(population, n, settings.repeats, 100 * number + n)
            for name, tally in found.items():
                errors = np.array(tally.errors)
                covered = f"{100 * np.mean(tally.covered):.1f} %" if tally.covered else ""
                lines.append(
                    f"| {population.name}, {population.n_prompts} x {population.n_seeds} | {n} "
                    f"| {name} | {errors.mean():+.4f} | {np.sqrt((errors**2).mean()):.4f} "
                    f"| {100 * (np.abs(errors) <= 0.02).mean():.0f} % | {covered} |"
                )
            print(f"{population.name}: {n} labels done", file=sys.stderr, flush=True)
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Simulate, print the table, and write it where asked."""
    settings = resolve(
        CorrectionSettings,
        argv,
        default_config=config_path("bench/study/correction.yaml"),
        prog="python scripts/bench_correction.py",
        description=(__doc__ or "").split("\n")[0],
    ).settings
    text = table(settings)
    print(text)
    if settings.write:
        page = settings.doc.read_text("utf-8")
        before, _, rest = page.partition(START)
        _, end, after = rest.partition(END)
        if not end:
            raise UserError(f"{settings.doc} has no lines {START} and {END}: put them in")
        command = f"`python scripts/bench_correction.py {' '.join(argv)}`"
        write_text_atomic(settings.doc, f"{before}{START}\n{command}\n\n{text}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
