"""The statistics again, slowly: by counting pairs, by enumerating, by maximising a likelihood.

Nothing here is imported from the package, and nothing is vectorised.
"""

from itertools import combinations, permutations, product
from math import dist, factorial, log, prod, sqrt

from scipy.optimize import brentq, minimize_scalar


def imbalance(answers, target):
    """Over all ordered pairs of different pictures; `answers` are value numbers or None."""
    read = [answer for answer in answers if answer is not None]
    pairs = list(permutations(read, 2))
    same = sum(a == b for a, b in pairs) / len(pairs)
    met = sum(target[a] + target[b] for a, b in pairs) / len(pairs)
    wanted = sum(q * q for q in target)
    farthest = max(
        sum(((k == shown) - q) ** 2 for k, q in enumerate(target)) for shown in range(len(target))
    )
    return (same - met + wanted) / farthest


def true_imbalance(shares, target):
    farthest = max(
        sum(((k == shown) - q) ** 2 for k, q in enumerate(target)) for shown in range(len(target))
    )
    return sum((p - q) ** 2 for p, q in zip(shares, target, strict=True)) / farthest


def outcomes(shares, n):
    """(counts, probability) of every way that n independent pictures can come out."""
    for counts in product(range(n + 1), repeat=len(shares)):
        if sum(counts) == n:
            ways = factorial(n) // prod(factorial(count) for count in counts)
            yield counts, ways * prod(p**count for p, count in zip(shares, counts, strict=True))


def sign_flip_p(values):
    flips = list(product((1, -1), repeat=len(values)))
    sums = [abs(sum(s * v for s, v in zip(flip, values, strict=True))) for flip in flips]
    return sum(total >= abs(sum(values)) - 1e-9 for total in sums) / len(flips)


def swap_p(baseline, treated, target):
    """Every way to swap the arms seed by seed."""
    observed = abs(imbalance(treated, target) - imbalance(baseline, target))
    hits = 0
    for swaps in product((False, True), repeat=len(baseline)):
        pairs = [
            (t, b) if swap else (b, t) for b, t, swap in zip(baseline, treated, swaps, strict=True)
        ]
        first, second = zip(*pairs, strict=True)
        hits += abs(imbalance(second, target) - imbalance(first, target)) >= observed - 1e-9
    return hits / 2 ** len(baseline)


def jackknife_error(statistic, seeds):
    """Standard error of statistic(list of seeds), leaving out one seed after another."""
    found = [statistic([s for s in seeds if s != out]) for out in seeds]
    mean = sum(found) / len(found)
    return sqrt((len(seeds) - 1) / len(seeds) * sum((x - mean) ** 2 for x in found))


def unreadable_bounds(answers, target):
    """Least and greatest imbalance over every answer that the unreadable could have had."""
    gaps = [n for n, answer in enumerate(answers) if answer is None]
    found = []
    for fill in product(range(len(target)), repeat=len(gaps)):
        whole = list(answers)
        for n, value in zip(gaps, fill, strict=True):
            whole[n] = value
        found.append(imbalance(whole, target))
    return min(found), max(found)


def tango(n_both, n_lost, n_won, n_neither):
    """Tango's interval of the change won - lost, from the likelihood of the four cells itself."""
    n = n_both + n_lost + n_won + n_neither

    def score(difference):
        def minus_log_likelihood(lost):
            won, rest = lost + difference, 1 - 2 * lost - difference
            cells = ((n_lost, lost), (n_won, won), (n_both + n_neither, rest))
            return -sum(count * log(max(p, 1e-300)) for count, p in cells if count)

        bounds = (max(0.0, -difference), (1 - difference) / 2)
        lost = minimize_scalar(
            minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}
        ).x
        variance = (2 * lost + difference - difference**2) / n
        return ((n_won - n_lost) / n - difference) / sqrt(max(variance, 1e-300))

    change = (n_won - n_lost) / n
    lo = brentq(lambda x: score(x) - 1.959963984540054, -1 + 1e-9, change - 1e-9)
    hi = brentq(lambda x: score(x) + 1.959963984540054, change + 1e-9, 1 - 1e-9)
    return lo, hi


def energy(first, second):
    """Energy distance between two sets of points, each compared with itself without its own."""

    def mean(pairs):
        pairs = list(pairs)
        return sum(dist(a, b) for a, b in pairs) / len(pairs)

    return (
        2 * mean(product(first, second))
        - mean(permutations(first, 2))
        - mean(permutations(second, 2))
    )


def kernel(first, second):
    """Squared maximum mean discrepancy, unbiased, with the kernel of Binkowski et al. (2018)."""

    def mean(pairs):
        pairs = list(pairs)
        products = [sum(x * y for x, y in zip(a, b, strict=True)) / len(a) for a, b in pairs]
        return sum((p + 1) ** 3 for p in products) / len(pairs)

    return (
        mean(permutations(first, 2))
        + mean(permutations(second, 2))
        - 2 * mean(product(first, second))
    )


def drift(baseline, treated, energy=energy):
    """Excess over the baseline's own distance between halves, over all ways to halve the seeds."""
    seeds = range(len(baseline))
    found = []
    for half in combinations(seeds, len(baseline) // 2):
        rest = [s for s in seeds if s not in half]
        apart = [baseline[s] for s in rest]
        found.append(
            energy([treated[s] for s in half], apart) - energy([baseline[s] for s in half], apart)
        )
    return sum(found) / len(found)
