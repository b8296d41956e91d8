"""The inner loop of R-BOCPD: many streams, one observation after the other, on plain arrays.

``monitoring.rbocpd.layout`` says what is in the state of the streams.
``plan`` (9,) int64 and ``shape`` (12,) float64 say what to do, see their indices below. The tables hold, for each count
below their length, log Gamma(count + a) - log Gamma(a), log Gamma(count + K a) - log Gamma(K a), the part of the
statistic that depends on n2 alone, and log(count); a is 1 for Laplace's rule and 1/2 for that of Krichevsky and
Trofimov. Beyond the tables Stirling's series is used.
"""

from __future__ import annotations

import math

import numpy as np

from monitoring.compiled import compiled
from monitoring.detector import FloatArray, IntArray
from monitoring.rbocpd.layout import COUNTS, FIRST, LEFT, SECOND, SEEN, START
from monitoring.weights import FALLEN

#: Entries of ``plan``: K; candidates (see below); most rows of a chain; forecasters per octave; 2 a; whether a new
#: segment keeps the observations since the change; formula of the weight; how far the look ahead reaches (0: it is not
#: known by how much the weight can grow, so the test is made at each observation); starts are multiples of this.
K_, CANDIDATES, CHAIN, PER_OCTAVE, TWICE_A, RESEED, FORMULA, AHEAD, STRIDE = range(9)
#: Values of ``plan[CANDIDATES]``.
HULL, OCTAVES, ALL = range(3)
#: Entries of ``shape``: seven parameters of the weight, and the most that the log weight of a forecaster which is
#: not yet born can be within the look ahead; log Gamma(a) and log Gamma(K a); knee and ceiling.
NEWBORN, SYMBOL, TOTAL, KNEE, CEILING = range(7, 12)
#: Columns of an event's integers: position in the batch, stream, index, detected; then counts before, and after.
POSITION, STREAM, INDEX, DETECTED, EVENT_COUNTS = range(5)
#: ``shape``, and the tables symbols, totals, after, logs, growths.
Tables = tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]
#: Of one stream: rows, lengths, before, due.
Rows = tuple[IntArray, IntArray, FloatArray, IntArray]
#: Of all: head, slack, rows, lengths, before, due.
State = tuple[IntArray, FloatArray, IntArray, IntArray, FloatArray, IntArray]
#: Evidence below this is rounding: two hypotheses can explain a short segment equally well.
TIE = 1e-9
#: The look ahead ends this much early, for what rounding may add up to.
MARGIN = 1e-6

#: Observations between two thinnings.
THINNING = 32
#: n2 below which it is seldom known for long that a row cannot become positive.
YOUNG = 256

#: Log of how many horizons a calibrated weight goes on falling.
LOG_FALLEN = math.log(FALLEN)
LOG_2 = math.log(2.0)
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@compiled
def log_gamma_ratio(table: FloatArray, count: int, offset: float, constant: float) -> float:
    """Return log Gamma(count + offset) - log Gamma(offset), the latter given; ``table`` knows it for small counts."""
    if count < len(table):
        found: float = table[count]
        return found
    x = count + offset
    return (x - 0.5) * math.log(x) - x + HALF_LOG_2PI + 1.0 / (12.0 * x) - constant


@compiled
def log_count(table: FloatArray, count: int) -> float:
    """Return log count."""
    return float(table[count]) if count < len(table) else math.log(count)


@compiled
def coarse_log(table: FloatArray, count: int, up: int) -> float:
    """Return a number no less (``up`` 1) or no greater (0) than log count, by a thousandth where ``table`` ends."""
    value: float
    if count + up < len(table):
        value = table[count]
    elif (count >> 10) + up < len(table):
        value = table[(count >> 10) + up] + 10.0 * LOG_2
    else:
        value = math.log(count)
    return value


@compiled
def log_before(formula: int, shape: FloatArray, k: int, n1: int) -> float:
    """Return the part of log eta that depends on n1."""
    value: float
    if formula == 0:
        value = shape[1] * math.log(n1)
    elif formula == 1:
        value = shape[0]
    elif formula == 2:
        value = shape[0] - math.log(n1) - math.log(n1 + 1)
    else:
        value = -0.5 * (k - 1) * math.log(n1)
        for i in range(1, k):
            value += math.log(n1 + i)
    return value


@compiled
def log_after(formula: int, shape: FloatArray, k: int, n2: int) -> float:
    """Return the part of log eta that depends on n2."""
    if formula == 0:
        found: float = shape[1] * math.log(n2)
        return found
    if formula == 3:
        value = -0.5 * (k - 1) * math.log(n2)
        for i in range(1, k):
            value += math.log(n2 + i)
        return value
    return 0.0


@compiled
def log_total(formula: int, shape: FloatArray, k: int, n: int) -> float:
    """Return the part of log eta that depends on n."""
    value: float
    if formula == 0:
        fallen = min(max(math.log(n) - shape[6], 0.0), LOG_FALLEN)
        value = shape[0] - shape[1] * math.log(n) - shape[5] * fallen
    elif formula == 1:
        value = -math.log(n)
    elif formula == 2:  # -log C(n + k - 1, k - 1)
        value = 0.0
        for i in range(1, k):
            value -= math.log(n + i) - math.log(i)
    else:
        delta, alpha = shape[0], shape[1]
        value = 2.0 * (-k / 12.0 - 0.5 * (k - 1) * math.log(2.0 * math.pi) + 0.5 * k * math.log(k))
        for i in range(1, k):
            value -= math.log(n + i) + math.log(i)
        bracket = math.log(4.0 * alpha + 2.0) * delta * delta / (4.0 * n * math.log((alpha + 3.0) * n))
        value += alpha * math.log(bracket)
    return value


@compiled
def after_of(plan: IntArray, shape: FloatArray, after: FloatArray, n2: int) -> float:
    """Return the part of the statistic that depends on n2 alone."""
    if n2 < len(after):
        found: float = after[n2]
        return found
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
    head: IntArray, held: Rows, plan: IntArray, tables: Tables, scratch: FloatArray, every: bool
) -> tuple[int, float, float]:
    """Return the row of the best change in one stream, its evidence, and from where on evidence must be watched.

    Unless ``every`` row is asked for, those are passed over that cannot become positive within the look ahead. So is
    what is returned, where nothing is positive: no more than that.

    An observation o adds log(PRED_s(o) / PRED_r(o)) to the evidence of s, at most PRED_s(o) / PRED_r(o) - 1. During J
    observations that is at most what it would be if all of them were the same o, and the weight grows by no more than
    its exponents over n2 with each. From this follows for how many of them the evidence stays negative, which is
    noted in ``due``; J of about the root of n2 tells the most. Where these are fewer than the look ahead, the row is
    watched: the last value returned is the greatest of their evidences, the growth of the weight within the look ahead
    included. It grows by at most the anchor's loss -log PRED_r(o) with an observation, which ``advance`` counts.
    """
    rows, lengths, before, due = held
    shape, symbols, totals, after, logs, growths = tables
    k, ahead = plan[K_], plan[AHEAD]
    a = 0.5 * plan[TWICE_A]
    counts, seen = head[COUNTS : COUNTS + k], head[SEEN]
    n = seen - head[START]
    if n < 2:
        return -1, -np.inf, shape[NEWBORN]
    anchor = log_gamma_ratio(totals, n, a * k, shape[TOTAL])
    for o in range(k):
        anchor -= log_gamma_ratio(symbols, counts[o], a, shape[SYMBOL])
        scratch[o] = 1.0 / (counts[o] + a)
    whole = log_total(plan[FORMULA], shape, k, n) + anchor
    late = plan[FORMULA] == 0 and shape[2] > 0.0
    knee, ceiling = shape[KNEE] * n, shape[CEILING] * n
    log_knee = shape[3] + log_count(logs, n)
    grows = shape[1] + shape[2]
    best, evidence, bound = -1, -np.inf, shape[NEWBORN]
    for chain in range(2):
        first = chain * plan[CHAIN] + 1
        last = first + head[FIRST + chain] - 1
        for row in range(first, last):
            if due[row] >= seen + ahead and not every:
                continue
            if math.isnan(before[row]):
                before[row] = part_before(rows[row], plan, shape, symbols, totals)
            value = before[row]
            n2 = n - lengths[row]
            if n2 < len(symbols):
                for o in range(k):
                    value += symbols[counts[o] - rows[row, o]]
                value += after[n2]
            else:
                for o in range(k):
                    value += log_gamma_ratio(symbols, counts[o] - rows[row, o], a, shape[SYMBOL])
                value += after_of(plan, shape, after, n2)
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
                if n2 < YOUNG and most <= bound:
                    continue  # watched with another one
                reach = max(ahead, int(1.5 * math.sqrt(n2)))
                ratio = 0.0
                for o in range(k):
                    ratio = max(ratio, (counts[o] - rows[row, o] + a + reach - 1) * scratch[o])
                ratio *= (n + reach - 1 + a * k) / (n2 + reach - 1 + a * k)
                rate = ratio - 1.0 + grows / n2
                room = -MARGIN - value - whole
                if room > rate * ahead:
                    due[row] = seen + (reach if room > rate * reach else int(room / rate))
                else:
                    bound = max(bound, most)
    return best, evidence + whole, bound


@compiled
def move(held: Rows, source: int, target: int) -> None:
    """Put a forecaster into another row."""
    rows, lengths, before, due = held
    for o in range(rows.shape[1]):
        rows[target, o] = rows[source, o]
    lengths[target] = lengths[source]
    before[target] = before[source]
    due[target] = due[source]


@compiled
def drop_crowded(held: Rows, first: int, length: int, n: int) -> None:
    """Remove the inner forecaster of a chain whose neighbours are nearest to each other for its age."""
    lengths, where, least = held[1], 1, np.inf
    for i in range(1, length - 1):
        row = first + i
        room = (lengths[row + 1] - lengths[row - 1]) / (n - lengths[row] + 1)
        if room < least:
            where, least = i, room
    for row in range(first + where, first + length - 1):
        move(held, row + 1, row)


@compiled
def thin(head: IntArray, held: Rows, plan: IntArray, oldest: int) -> None:
    """Keep of the starts that are a multiple of 2**l, and of no higher power, those younger than 2**l times 2 m.

    So at most m of each octave of age remain, and a start of any age lies within a share 1/m of it. The anchor stays.
    Only starts up to the age ``oldest`` are looked at.
    """
    n, lengths = head[SEEN] - head[START], held[1]
    begin = head[FIRST]
    while begin > 1 and n - lengths[begin - 1] <= oldest:
        begin -= 1
    kept = begin
    for row in range(begin, head[FIRST]):
        start = head[START] + lengths[row]
        if head[SEEN] - start <= 2 * plan[PER_OCTAVE] * (start & -start):
            if kept != row:
                move(held, row, kept)
            kept += 1
    head[FIRST] = kept


@compiled
def append(head: IntArray, held: Rows, plan: IntArray) -> bool:
    """Add the forecaster that begins at the next observation, if one may; return False if there is no room for it."""
    if plan[CANDIDATES] == OCTAVES:
        # Young starts are thinned often, older ones half as often with each octave: about three of them a time.
        n = head[SEEN] - head[START]
        if n % THINNING == 0:
            thin(head, held, plan, 6 * (n & -n))
        if head[FIRST] == plan[CHAIN]:
            thin(head, held, plan, n)
    row = head[FIRST]
    if row and head[SEEN] % plan[STRIDE]:
        return True
    if row == plan[CHAIN]:
        return False
    rows, lengths, before, due = held
    for o in range(plan[K_]):
        rows[row, o] = head[COUNTS + o]
    lengths[row] = head[SEEN] - head[START]
    before[row] = np.nan
    due[row] = 0
    head[FIRST] = row + 1
    return True


@compiled
def restart(head: IntArray, held: Rows, plan: IntArray, best: int) -> None:
    """Begin a new segment: at the change in row ``best`` with what was seen since, or empty after now."""
    k, chain = plan[K_], plan[CHAIN]
    rows, lengths, before, due = held
    head[LEFT] = 0
    if not plan[RESEED]:
        head[START] = head[SEEN]
        head[FIRST : SECOND + 1] = 0
        head[COUNTS : COUNTS + k] = 0
        return
    shift, n1 = rows[best].copy(), lengths[best]
    for side in range(2 if plan[CANDIDATES] == HULL else 1):
        first = side * chain
        rows_kept = 1
        for row in range(first, first + head[FIRST + side]):
            if lengths[row] > n1:
                rows[first + rows_kept] = rows[row] - shift
                lengths[first + rows_kept] = lengths[row] - n1
                before[first + rows_kept] = np.nan
                due[first + rows_kept] = 0
                rows_kept += 1
        rows[first] = 0
        lengths[first] = 0
        before[first] = np.nan
        head[FIRST + side] = rows_kept
    head[COUNTS : COUNTS + k] -= shift
    head[START] += n1


@compiled
def advance(
    state: State,
    streams: IntArray,
    xs: IntArray,
    begin: int,
    plan: IntArray,
    tables: Tables,
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
    head, slack, rows, lengths, before, due = state
    shape, symbols, totals, _, logs, _ = tables
    k, ahead = plan[K_], plan[AHEAD]
    hull = plan[CANDIDATES] == HULL
    found, current = 0, -1
    for i in range(begin, len(xs)):
        if found == len(events):
            return i, found
        x = xs[i]
        if streams[i] != current:
            current = streams[i]
            mine, its_rows, its_lengths = head[current], rows[current], lengths[current]
            its_before, its_due = before[current], due[current]
            held = its_rows, its_lengths, its_before, its_due
        if not hull:
            if not append(mine, held, plan):
                return i, found
        elif mine[SEEN] == mine[START]:
            its_rows[0], its_rows[plan[CHAIN]] = 0, 0
            its_lengths[0], its_lengths[plan[CHAIN]] = 0, 0
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
                left = its_lengths[last - 1]
                dx, dy = its_lengths[last] - left, its_rows[last, 1] - below
                if (1 - 2 * side) * (dx * (ones - below) - dy * (zeros + ones - left)) > 0:
                    break
                last -= 1
            last += 1
            if last - first == plan[CHAIN]:
                drop_crowded(held, first, plan[CHAIN], zeros + ones)
                last -= 1
            its_rows[last, 0], its_rows[last, 1] = zeros, ones
            its_lengths[last] = zeros + ones
            its_before[last] = np.nan
            its_due[last] = 0
            mine[FIRST + side] = last - first + 1
        if mine[LEFT] > 0:
            # What the anchor loses on x is the most that any evidence can grow by, its weight apart.
            n, count = mine[SEEN] - mine[START], mine[COUNTS + x]
            if n + 1 < len(totals):
                loss = totals[n + 1] - totals[n] - symbols[count + 1] + symbols[count]
            else:
                loss = coarse_log(logs, n + k, 1) - coarse_log(logs, count, 0)
            slack[current] -= loss
            mine[LEFT] = 0 if slack[current] < MARGIN else mine[LEFT] - 1
        mine[COUNTS + x] += 1
        mine[SEEN] += 1
        if mine[LEFT] > 0:
            continue
        best, evidence, bound = statistic(mine, held, plan, tables, scratch, False)
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
        events[found, INDEX] = mine[START] + its_lengths[best]
        events[found, DETECTED] = mine[SEEN] - 1
        events[found, EVENT_COUNTS : EVENT_COUNTS + k] = counts
        events[found, EVENT_COUNTS + k : EVENT_COUNTS + 2 * k] = mine[COUNTS : COUNTS + k] - counts
        evidences[found] = evidence
        found += 1
        restart(mine, held, plan, best)
    return len(xs), found
