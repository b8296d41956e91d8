"""The inner loop of R-BOCPD: many streams, one observation after the other, on plain arrays.

State of S streams with K categories, up to R forecasters each:

- ``head`` (S, 5 + K) int64: observations seen, start of the segment, forecasters in the first and in the second chain,
  observations until the test must be looked at again, and how often each category occurred in the segment;
- ``slack`` (S,) float64: by how much the evidence can still grow before the test must be looked at again, in nats;
- ``rows`` (S, R, K) int64: for each forecaster, how often each category occurred in the segment before its start. The
  first row of a chain is the anchor. A hull has two chains, each in one half of the rows; else there is one;
- ``before`` (S, R) float64: log of the part of its weight and likelihood that no later observation changes, NaN until
  it is needed.

``plan`` (8,) int64 and ``shape`` (10,) float64 say what to do, see their indices below. The tables hold, for each count
below their length, log Gamma(count + a) - log Gamma(a), log Gamma(count + K a) - log Gamma(K a), the part of the
statistic that depends on n2 alone, and log(count); a is 1 for Laplace's rule and 1/2 for that of Krichevsky and
Trofimov. Beyond the tables Stirling's series is used.
"""

from __future__ import annotations

import math

import numpy as np

from monitoring.compiled import compiled
from monitoring.detector import FloatArray, IntArray

#: Columns of ``head``.
SEEN, START, FIRST, SECOND, LEFT, COUNTS = range(6)
#: Entries of ``plan``: K; candidates (see below); most rows of a chain; forecasters per octave; 2 a; whether a new
#: segment keeps the observations since the change; formula of the weight; how far the look ahead reaches (0: it is not
#: known by how much the weight can grow, so the test is made at each observation).
K_, CANDIDATES, CHAIN, PER_OCTAVE, TWICE_A, RESEED, FORMULA, AHEAD = range(8)
#: Values of ``plan[CANDIDATES]``.
HULL, OCTAVES, ALL = range(3)
#: Entries of ``shape``: five parameters of the weight, and the most that the log weight of a forecaster which is
#: not yet born can be within the look ahead; log Gamma(a) and log Gamma(K a); knee and ceiling.
NEWBORN, SYMBOL, TOTAL, KNEE, CEILING = 5, 6, 7, 8, 9
#: Evidence below this is rounding: two hypotheses can explain a short segment equally well.
TIE = 1e-9
#: The look ahead ends this much early, for what rounding may add up to.
MARGIN = 1e-6

#: Columns of an event's integers: position in the batch, stream, index, detected; then counts before, and after.
POSITION, STREAM, INDEX, DETECTED, EVENT_COUNTS = range(5)

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@compiled
def log_gamma_ratio(table: FloatArray, count: int, offset: float, constant: float) -> float:
    """Return log Gamma(count + offset) - log Gamma(offset), the latter given; ``table`` knows it for small counts."""
    if count < len(table):
        return table[count]  # type: ignore[no-any-return]
    x = count + offset
    return (x - 0.5) * math.log(x) - x + HALF_LOG_2PI + 1.0 / (12.0 * x) - constant


@compiled
def log_count(table: FloatArray, count: int) -> float:
    """Return log count."""
    return table[count] if count < len(table) else math.log(count)


@compiled
def log_before(formula: int, shape: FloatArray, k: int, n1: int) -> float:
    """Return the part of log eta that depends on n1."""
    if formula == 0:
        return shape[1] * math.log(n1)  # type: ignore[no-any-return]
    if formula == 1:
        return shape[0]  # type: ignore[no-any-return]
    if formula == 2:
        return shape[0] - math.log(n1) - math.log(n1 + 1)  # type: ignore[no-any-return]
    value = -0.5 * (k - 1) * math.log(n1)
    for i in range(1, k):
        value += math.log(n1 + i)
    return value


@compiled
def log_after(formula: int, shape: FloatArray, k: int, n2: int) -> float:
    """Return the part of log eta that depends on n2."""
    if formula == 0:
        return shape[1] * math.log(n2)  # type: ignore[no-any-return]
    if formula == 3:
        value = -0.5 * (k - 1) * math.log(n2)
        for i in range(1, k):
            value += math.log(n2 + i)
        return value
    return 0.0


@compiled
def log_total(formula: int, shape: FloatArray, k: int, n: int) -> float:
    """Return the part of log eta that depends on n."""
    if formula == 0:
        return shape[0] - shape[1] * math.log(n)  # type: ignore[no-any-return]
    if formula == 1:
        return -math.log(n)
    value = 0.0
    if formula == 2:  # -log C(n + k - 1, k - 1)
        for i in range(1, k):
            value -= math.log(n + i) - math.log(i)
        return value
    delta, alpha = shape[0], shape[1]
    value = 2.0 * (-k / 12.0 - 0.5 * (k - 1) * math.log(2.0 * math.pi) + 0.5 * k * math.log(k))
    for i in range(1, k):
        value -= math.log(n + i) + math.log(i)
    bracket = math.log(4.0 * alpha + 2.0) * delta * delta / (4.0 * n * math.log((alpha + 3.0) * n))
    return value + alpha * math.log(bracket)  # type: ignore[no-any-return]


@compiled
def after_of(plan: IntArray, shape: FloatArray, after: FloatArray, n2: int) -> float:
    """Return the part of the statistic that depends on n2 alone."""
    if n2 < len(after):
        return after[n2]  # type: ignore[no-any-return]
    k = plan[K_]
    return log_after(plan[FORMULA], shape, k, n2) - log_gamma_ratio(
        after[:0], n2, 0.5 * plan[TWICE_A] * k, shape[TOTAL]
    )


@compiled
def fill_after(plan: IntArray, shape: FloatArray, totals: FloatArray, after: FloatArray) -> None:
    """Compute the table of ``after_of``."""
    after[0] = 0.0
    for n2 in range(1, len(after)):
        after[n2] = log_after(plan[FORMULA], shape, plan[K_], n2) - totals[n2]


@compiled
def part_before(counts: IntArray, plan: IntArray, shape: FloatArray, symbols: FloatArray, totals: FloatArray) -> float:
    """Return the part of the statistic that depends on the counts before s alone."""
    k, a = plan[K_], 0.5 * plan[TWICE_A]
    n1 = 0
    value = 0.0
    for o in range(k):
        n1 += counts[o]
        value += log_gamma_ratio(symbols, counts[o], a, shape[SYMBOL])
    return value + log_before(plan[FORMULA], shape, k, n1) - log_gamma_ratio(totals, n1, a * k, shape[TOTAL])


@compiled
def statistic(
    head: IntArray,
    rows: IntArray,
    before: FloatArray,
    plan: IntArray,
    shape: FloatArray,
    symbols: FloatArray,
    totals: FloatArray,
    after: FloatArray,
    logs: FloatArray,
    growths: FloatArray,
    scratch: FloatArray,
) -> tuple[int, float, float]:
    """Return the row of the best change in one stream, its evidence, and from where on evidence must be watched.

    The last is the greatest value of those that may become positive within the look ahead, the growth of the weight
    included. An observation o adds log(PRED_s(o) / PRED_r(o)) to the evidence of s. That is at most the anchor's
    loss -log PRED_r(o), which ``advance`` counts; and for all of the J observations ahead at most J (ratio - 1), with
    the ratio that J times the same o would bring about. What stays negative by the second bound is left out.
    """
    k, ahead = plan[K_], plan[AHEAD]
    a = 0.5 * plan[TWICE_A]
    reach = ahead - 1 + a
    counts = head[COUNTS : COUNTS + k]
    n = head[SEEN] - head[START]
    if n < 2:
        return -1, -np.inf, shape[NEWBORN]
    anchor = log_gamma_ratio(totals, n, a * k, shape[TOTAL])
    for o in range(k):
        anchor -= log_gamma_ratio(symbols, counts[o], a, shape[SYMBOL])
    whole = log_total(plan[FORMULA], shape, k, n) + anchor
    known = counts.max() < len(symbols)
    for o in range(k):
        scratch[o] = (n + ahead - 1 + a * k) / (counts[o] + a)
    late = plan[FORMULA] == 0 and shape[2] > 0.0
    knee, ceiling = shape[KNEE] * n, shape[CEILING] * n
    log_knee = shape[3] + log_count(logs, n)
    best, evidence, bound = -1, -np.inf, shape[NEWBORN]
    for chain in range(2):
        first = chain * plan[CHAIN] + 1
        last = first + head[FIRST + chain] - 1
        for row in range(first, last):
            if math.isnan(before[row]):
                before[row] = part_before(rows[row], plan, shape, symbols, totals)
            value = before[row]
            n2 = 0
            if known:
                for o in range(k):
                    count = counts[o] - rows[row, o]
                    n2 += count
                    value += symbols[count]
            else:
                for o in range(k):
                    count = counts[o] - rows[row, o]
                    n2 += count
                    value += log_gamma_ratio(symbols, count, a, shape[SYMBOL])
            value += after[n2] if n2 < len(after) else after_of(plan, shape, after, n2)
            if late:
                area = float(n - n2) * n2
                if area >= ceiling:
                    value += shape[2] * (shape[4] - shape[3])
                elif area > knee:
                    value += shape[2] * (log_count(logs, n - n2) + log_count(logs, n2) - log_knee)
            if value > evidence:
                best, evidence = row, value
            if ahead:
                most = value + whole + growths[min(n2, len(growths) - 1)]
                if most > bound:
                    ratio = 0.0
                    for o in range(k):
                        ratio = max(ratio, (counts[o] - rows[row, o] + reach) * scratch[o])
                    if most + ahead * (ratio / (n2 + ahead - 1 + a * k) - 1.0) > -MARGIN:
                        bound = most
    return best, evidence + whole, bound


@compiled
def drop_crowded(rows: IntArray, before: FloatArray, first: int, length: int, n: int) -> None:
    """Remove the inner forecaster of a chain whose neighbours are nearest to each other for its age."""
    where, least = 1, np.inf
    for i in range(1, length - 1):
        row = first + i
        near = rows[row + 1].sum() - rows[row - 1].sum()
        room = near / (n - rows[row].sum() + 1)
        if room < least:
            where, least = i, room
    for row in range(first + where, first + length - 1):
        rows[row] = rows[row + 1]
        before[row] = before[row + 1]


@compiled
def thin(head: IntArray, rows: IntArray, before: FloatArray, plan: IntArray) -> None:
    """Keep of the starts that are a multiple of 2**l, and of no higher power, those younger than 2**l times 2 m.

    So at most m of each octave of age remain, and a start of any age lies within a share 1/m of it. The anchor stays.
    """
    kept = 1
    for row in range(1, head[FIRST]):
        start = head[START] + rows[row].sum()
        if head[SEEN] - start <= 2 * plan[PER_OCTAVE] * (start & -start):
            if kept != row:
                rows[kept] = rows[row]
                before[kept] = before[row]
            kept += 1
    head[FIRST] = kept


@compiled
def append(head: IntArray, rows: IntArray, before: FloatArray, plan: IntArray) -> bool:
    """Add the forecaster that begins at the next observation to a chain; return False if there is no room for it."""
    row = head[FIRST]
    if row == plan[CHAIN]:
        if plan[CANDIDATES] == OCTAVES:
            thin(head, rows, before, plan)
        row = head[FIRST]
        if row == plan[CHAIN]:
            return False
    for o in range(plan[K_]):
        rows[row, o] = head[COUNTS + o]
    before[row] = np.nan
    head[FIRST] = row + 1
    return True


@compiled
def restart(head: IntArray, rows: IntArray, before: FloatArray, plan: IntArray, best: int) -> None:
    """Begin a new segment: at the change in row ``best`` with what was seen since, or empty after now."""
    k, chain = plan[K_], plan[CHAIN]
    head[LEFT] = 0
    if not plan[RESEED]:
        head[START] = head[SEEN]
        head[FIRST : SECOND + 1] = 0
        head[COUNTS : COUNTS + k] = 0
        return
    shift = rows[best].copy()
    n1 = shift.sum()
    for side in range(2 if plan[CANDIDATES] == HULL else 1):
        first = side * chain
        rows_kept = 1
        for row in range(first, first + head[FIRST + side]):
            if rows[row].sum() > n1:
                rows[first + rows_kept] = rows[row] - shift
                before[first + rows_kept] = np.nan
                rows_kept += 1
        rows[first] = 0
        before[first] = np.nan
        head[FIRST + side] = rows_kept
    head[COUNTS : COUNTS + k] -= shift
    head[START] += n1


@compiled
def advance(
    head: IntArray,
    slack: FloatArray,
    rows: IntArray,
    before: FloatArray,
    streams: IntArray,
    xs: IntArray,
    begin: int,
    plan: IntArray,
    shape: FloatArray,
    symbols: FloatArray,
    totals: FloatArray,
    after: FloatArray,
    logs: FloatArray,
    growths: FloatArray,
    scratch: FloatArray,
    events: IntArray,
    evidences: FloatArray,
    climbing: bool,
) -> tuple[int, int]:
    """Give observation ``xs[i]`` to stream ``streams[i]``, for i from ``begin`` on.

    Stops early where ``events`` is full, or a stream has no room for one more forecaster. With ``climbing`` nothing is
    ever restarted; the scale is lowered to what would just raise no alarm. So afterwards ``-shape[0]`` is the greatest
    evidence that a weight of scale 1 would have had, or what it was before where that is greater.

    Returns
    -------
    tuple
        The first i that was not taken, and the number of events written.
    """
    k, ahead = plan[K_], plan[AHEAD]
    a = 0.5 * plan[TWICE_A]
    hull = plan[CANDIDATES] == HULL
    found = 0
    current = -1
    for i in range(begin, len(xs)):
        if found == len(events):
            return i, found
        x = xs[i]
        if streams[i] != current:
            current = streams[i]
            mine, its_rows, its_before = head[current], rows[current], before[current]
        if not hull:
            if not append(mine, its_rows, its_before, plan):
                return i, found
        elif mine[SEEN] == mine[START]:
            its_rows[0], its_rows[plan[CHAIN]] = 0, 0
            mine[FIRST], mine[SECOND] = 1, 1
        else:
            # The lower hull (side 0) of the points (observations, ones among them), or the upper one. A start before a
            # one is no vertex of the upper hull, nor one before a zero of the lower: the path goes on there as steeply
            # as it can. Written out here, as a call would cost more than it does.
            ones, zeros = mine[COUNTS + 1], mine[COUNTS]
            side = 1 - x
            first = side * plan[CHAIN]
            last = first + mine[FIRST + side] - 1
            while last > first:
                below = its_rows[last - 1, 1]
                left = its_rows[last - 1, 0] + below
                dx, dy = its_rows[last, 0] + its_rows[last, 1] - left, its_rows[last, 1] - below
                if (1 - 2 * side) * (dx * (ones - below) - dy * (zeros + ones - left)) > 0:
                    break
                last -= 1
            last += 1
            if last - first == plan[CHAIN]:
                drop_crowded(its_rows, its_before, first, plan[CHAIN], zeros + ones)
                last -= 1
            its_rows[last, 0], its_rows[last, 1] = zeros, ones
            its_before[last] = np.nan
            mine[FIRST + side] = last - first + 1
        if mine[LEFT] > 0:
            # What the anchor loses on x is the most that any evidence can grow by, its weight apart.
            n, count = mine[SEEN] - mine[START], mine[COUNTS + x]
            if n + 1 < len(totals):
                loss = totals[n + 1] - totals[n] - symbols[count + 1] + symbols[count]
            else:
                loss = math.log((n + a * k) / (count + a))
            slack[current] -= loss
            mine[LEFT] = 0 if slack[current] < MARGIN else mine[LEFT] - 1
        mine[COUNTS + x] += 1
        mine[SEEN] += 1
        if mine[LEFT] > 0:
            continue
        best, evidence, bound = statistic(
            mine, its_rows, its_before, plan, shape, symbols, totals, after, logs, growths, scratch
        )
        if climbing and evidence > TIE:
            shape[0] -= evidence
            shape[NEWBORN] -= evidence
            bound -= evidence
            evidence = 0.0
        if not evidence > TIE:
            if ahead:
                mine[LEFT] = ahead
                slack[current] = -bound
            continue
        counts = its_rows[best]
        events[found, POSITION] = i
        events[found, STREAM] = current
        events[found, INDEX] = mine[START] + counts.sum()
        events[found, DETECTED] = mine[SEEN] - 1
        events[found, EVENT_COUNTS : EVENT_COUNTS + k] = counts
        events[found, EVENT_COUNTS + k : EVENT_COUNTS + 2 * k] = mine[COUNTS : COUNTS + k] - counts
        evidences[found] = evidence
        found += 1
        restart(mine, its_rows, its_before, plan, best)
    return len(xs), found
