"""A made-up shop whose features shift from day to day, while what decides a label stays.

The causal graph is that of the generative model behind ELBO_TDS: stable content c of users and items decides the label,
and the observed statistics are made of c and of time-varying factors e, whose law drifts::

    y ~ Bernoulli(sigmoid(b + taste <c_u, c_i> / sqrt(k) + appeal (q_u + q_i)))         p(y | c): the same on all days
    x = exp(content f(c) + level_t + spread e_t + noise ε)                              p_t(e | c): another every day

``q`` is a linear part of c ("appeal"). ``level_t`` drifts by a random walk and a weekly wave, one for each shifting
feature. ``e_t`` is what was done for an item (a promotion, a better place) or to a user (a campaign) on that day. Who
gets it depends on the day: ``e_t = rho_t q + sqrt(1 - rho_t^2) ε``. So within a day e tells something of the label,
through c alone, and ``rho_t`` moves; a model that takes it for a cause is wrong on the next day. On a sale day the
levels jump for that day, the spread doubles, and ``rho_t`` has its sign turned. Labels know nothing of all this: given
c they do not depend on the day.

Two numbers decide whether a model does well to use e. ``persistence`` is how much of ``rho_t`` is left on the next day:
where it is high, what e tells today is true tomorrow too, and a model that is trained every day gains by following it;
where it is 0, it is an accident of the day. ``content`` is how much a shifting statistic tells of c beside e. There are
three worlds: ``DAILY``, with shifting statistics that are almost all e, a new ``rho_t`` each day and a sale every
fourth; ``SLOW``, with statistics as full of c as those that stay, correlations that last for days and few sales; and
``STILL``, ``DAILY`` without any shift.

Besides statistics there are categories (of items: id, category and brand; of users: segment, and a city that means
nothing) and histories of item ids, into which the day's trending category intrudes to a share that varies. Items are
replaced a few a day, so that ids alone are not enough. Some statistics have neither level nor e and stay. With
``drift``, ``wave``, ``spread``, ``sale_jump`` and ``trend`` at 0 the world is at rest but for the replaced items and
what is measured wrongly.

``DAILY`` is the situation that the method is made for, and stands here for that: e is strong, it seems to tell much,
since the appeal that it is correlated with weighs much in a label, and items are so many that their ids are not soon
learned. No model is kept from doing well in it: all see the same rows, and averaged over some days e tells nothing. In
``SLOW`` it is the other way round: who follows e gains, but for the days of a sale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import Field
from training.sessions import Sessions

Float64 = NDArray[np.float64]

#: Statistics and whether they shift.
USER_STATISTICS = {"age": False, "tenure": False, "searches_1d": True, "clicks_7d": True, "orders_30d": True}
ITEM_STATISTICS = {
    "price": False,
    "rating": False,
    "weight": False,
    "views_1d": True,
    "views_7d": True,
    "carts_7d": True,
    "orders_7d": True,
    "discount": True,
}


@dataclass(frozen=True)
class World:
    """What the world is like.

    Parameters
    ----------
    days, sessions, rows
        How many days, sessions in each, and items shown in each session.
    users, items
        How many users there are, and items at once.
    churn
        Share of the items that is replaced each day.
    factors
        Length of c.
    taste, appeal, bias
        Parts of the logit: of the match of user and item, of both their appeals, and constant.
    drift, wave
        Standard deviation of a day's step of each level, and height of its weekly wave.
    spread
        How much the e of users and items scatters, in the units of f(c), which has deviation 1.
    correlation, persistence
        Greatest |rho_t|, and the autocorrelation from day to day of the walk that makes it.
    content
        How much of f(c) is in a statistic that shifts; in one that stays it is 1.
    sale_days, sale_jump
        Days of sales, from 0, and by how much the levels jump then.
    noise
        Standard deviation of what is measured wrongly: once of a statistic that stays, each day of one that shifts.
    history, trend
        Entries of a history at most, and the greatest share of them that is the day's trend and no taste.
    """

    days: int = 20
    sessions: int = 2_000
    rows: int = 10
    users: int = 4_000
    items: int = 1_500
    churn: float = 0.03
    factors: int = 8
    taste: float = 1.5
    appeal: float = 0.7
    bias: float = -2.0
    drift: float = 0.15
    wave: float = 0.2
    spread: float = 0.7
    correlation: float = 0.8
    persistence: float = 0.7
    content: float = 1.0
    sale_days: tuple[int, ...] = (11, 16)
    sale_jump: float = 1.5
    noise: float = 0.3
    history: int = 20
    trend: float = 0.5


SLOW = World()
DAILY = World(
    days=24,
    sessions=1_700,
    items=8_000,
    churn=0.05,
    appeal=1.0,
    spread=1.0,
    correlation=0.95,
    persistence=0.0,
    content=0.1,
    sale_days=(5, 9, 13, 17, 21),
)
STILL = replace(DAILY, drift=0.0, wave=0.0, spread=0.0, sale_jump=0.0, trend=0.0)


@dataclass(frozen=True)
class Truth:
    """What no model is told of a day's rows.

    Parameters
    ----------
    probability : ndarray of float64, shape (n,)
        Of the label, given c: no score ranks better on average.
    user_factor, item_factor : ndarray of float64, shape (n,)
        The e of the row's user and item.
    """

    probability: Float64
    user_factor: Float64
    item_factor: Float64


class GeneratedSessions:
    """The source; equal worlds and seeds give equal sessions.

    A day is made whole, so that memory is bounded by a day and not by ``read``'s number of sessions.

    Parameters
    ----------
    seed
        Of everything.
    world
        What it is like.
    """

    tasks = ("click",)
    #: Names of the features whose law changes with time.
    shifting = (
        *(name for name, shifts in {**USER_STATISTICS, **ITEM_STATISTICS}.items() if shifts),
        "recent",
    )

    def __init__(self, seed: int, world: World | None = None) -> None:
        self.world = world = world or World()
        self._seed = seed
        self.user = (
            *(Field(name, "statistical") for name in USER_STATISTICS),
            Field("segment", "categorical"),
            Field("city", "categorical"),
            Field("recent", "sequential", length=world.history, vocabulary="item_id"),
        )
        self.item = (
            *(Field(name, "statistical") for name in ITEM_STATISTICS),
            Field("item_id", "categorical"),
            Field("category", "categorical"),
            Field("brand", "categorical"),
        )
        rng = np.random.default_rng([seed, 0])
        k, replaced = world.factors, round(world.churn * world.items)
        total = world.items + world.days * replaced
        self._c_user = rng.normal(size=(world.users, k))
        self._c_item = rng.normal(size=(total, k))
        # The oldest go first: items of day t are those from here on.
        self._first_item = np.arange(world.days) * replaced
        self._q_user, self._q_item = (c @ _unit(rng.normal(size=k)) for c in (self._c_user, self._c_item))
        self._f_user = self._contents(rng, self._c_user, self._q_user, USER_STATISTICS)
        self._f_item = self._contents(rng, self._c_item, self._q_item, ITEM_STATISTICS)
        centres = rng.normal(size=(20, k))
        self._category = np.argmax(self._c_item @ centres.T + rng.gumbel(size=(total, 20)), axis=1)
        self._brand = np.argmax(self._c_item @ rng.normal(size=(40, k)).T + 3.0 * rng.gumbel(size=(total, 40)), axis=1)
        self._segment = np.argmax(
            self._c_user @ rng.normal(size=(12, k)).T + rng.gumbel(size=(world.users, 12)), axis=1
        )
        self._city = rng.integers(0, 30, world.users)
        self._popularity = rng.gamma(0.7, size=total) + 0.02
        wishes = self._c_user @ centres.T / np.sqrt(k) * 2.0
        self._wishes = np.exp(wishes) / np.exp(wishes).sum(axis=1, keepdims=True)
        self._levels = self._drawn_levels(rng)
        self.rho = self._drawn_correlations(rng)
        self._trends = rng.integers(0, 20, world.days), world.trend * rng.random(world.days)

    def _drawn_levels(self, rng: np.random.Generator) -> Float64:
        """Return the level of each statistic on each day, the user's first."""
        world, names = self.world, (*USER_STATISTICS, *ITEM_STATISTICS)
        walk = np.cumsum(world.drift * rng.normal(size=(world.days, len(names))), axis=0)
        phase = rng.random(len(names))
        wave = world.wave * np.sin(2.0 * np.pi * (np.arange(world.days)[:, None] / 7.0 + phase))
        jump = np.zeros((world.days, 1))
        jump[[day for day in world.sale_days if day < world.days]] = world.sale_jump
        shifts = np.array([*USER_STATISTICS.values(), *ITEM_STATISTICS.values()], dtype=np.float64)
        levels: Float64 = (walk + wave + jump) * shifts
        return levels

    def _drawn_correlations(self, rng: np.random.Generator) -> Float64:
        """Return rho of users and items on each day, shape (days, 2)."""
        world, steps = self.world, rng.normal(size=(self.world.days, 2))
        walk = np.zeros((world.days, 2))
        walk[0] = steps[0]
        for day in range(1, world.days):
            walk[day] = world.persistence * walk[day - 1] + np.sqrt(1.0 - world.persistence**2) * steps[day]
        rho: Float64 = world.correlation * np.tanh(1.5 * walk)
        for day in world.sale_days:
            if 0 < day < world.days:
                rho[day] = -world.correlation * np.sign(rho[day - 1])
        return rho

    def days(self) -> Sequence[int]:
        """Return 0 to the world's last day."""
        return range(self.world.days)

    def read(self, day: int, sessions: int) -> Iterator[Sessions]:
        """Yield a day's sessions."""
        whole, _ = self._day(day)
        for start in range(0, self.world.sessions, sessions):
            stop = min(start + sessions, self.world.sessions)
            rows = slice(start * self.world.rows, stop * self.world.rows)
            yield Sessions(
                day=day,
                user={name: column[start:stop] for name, column in whole.user.items()},
                item={name: column[rows] for name, column in whole.item.items()},
                session=(whole.session[rows] - start).astype(np.int32),
                labels=whole.labels[rows],
            )

    def truth(self, day: int) -> Truth:
        """Return what is behind a day's rows, in their order."""
        return self._day(day)[1]

    def _day(self, day: int) -> tuple[Sessions, Truth]:
        world, rng = self.world, np.random.default_rng([self._seed, 1, day])
        alive = np.arange(self._first_item[day], self._first_item[day] + world.items)
        spread = world.spread * (2.0 if day in world.sale_days else 1.0)
        shares = self._popularity[alive] / self._popularity[alive].sum()
        user = rng.integers(0, world.users, world.sessions)
        item = alive[rng.choice(world.items, (world.sessions, world.rows), p=shares)].ravel()
        session = np.repeat(np.arange(world.sessions, dtype=np.int32), world.rows)
        e_user = _factor(rng, self._q_user, self.rho[day, 0])
        e_item = _factor(rng, self._q_item, self.rho[day, 1])
        whom = user[session]
        match = np.einsum("nk,nk->n", self._c_user[whom], self._c_item[item]) / np.sqrt(world.factors)
        appeals = self._q_user[whom] + self._q_item[item]
        p = 1.0 / (1.0 + np.exp(-(world.bias + world.taste * match + world.appeal * appeals)))
        labels = (rng.random(len(p)) < p).astype(np.float32)[:, None]
        levels = np.split(self._levels[day], [len(USER_STATISTICS)])
        # An item's statistics are those of the day, the same in every session.
        x_user = self._observed(rng, self._f_user, USER_STATISTICS, levels[0], spread * e_user)[user]
        x_item = self._observed(rng, self._f_item, ITEM_STATISTICS, levels[1], spread * e_item)[item]
        users: dict[str, NDArray[Any]] = dict(zip(USER_STATISTICS, x_user.T, strict=True))
        users |= {"segment": self._segment[user], "city": self._city[user]}
        users["recent"] = self._histories(rng, user, day, alive, shares)
        items: dict[str, NDArray[Any]] = dict(zip(ITEM_STATISTICS, x_item.T, strict=True))
        items |= {"item_id": item, "category": self._category[item], "brand": self._brand[item]}
        return Sessions(day, users, items, session, labels), Truth(p, e_user[whom], e_item[item])

    def _observed(
        self, rng: np.random.Generator, contents: Float64, statistics: dict[str, bool], level: Float64, factor: Float64
    ) -> Float64:
        shifts = np.array([*statistics.values()], dtype=np.float64)
        noise = self.world.noise * rng.normal(size=contents.shape)
        seen = np.where(shifts > 0.0, self.world.content, 1.0) * contents
        return np.exp(seen + level + (factor[:, None] + noise) * shifts)

    def _contents(self, rng: np.random.Generator, c: Float64, appeal: Float64, statistics: dict[str, bool]) -> Float64:
        """Return f(c), shape (n, count): each a line, some appeal and a bend, scaled to deviation 1.

        What is measured wrongly of a statistic that stays, stays too.
        """
        count, stays = len(statistics), ~np.array([*statistics.values()])
        lines, bends = (rng.normal(size=(c.shape[1], count)) / np.sqrt(c.shape[1]) for _ in range(2))
        made = c @ lines + 0.5 * appeal[:, None] * rng.choice([-1.0, 1.0], count) + 0.5 * np.tanh(c @ bends) ** 2
        scaled = (made - made.mean(axis=0)) / made.std(axis=0)
        contents: Float64 = scaled + self.world.noise * rng.normal(size=scaled.shape) * stays
        return contents

    def _histories(
        self, rng: np.random.Generator, user: NDArray[np.int64], day: int, alive: NDArray[np.int64], shares: Float64
    ) -> NDArray[np.int64]:
        """Return a matrix of item ids, -1 as padding: a category by taste or by the day's trend, an item of it."""
        shape = (len(user), self.world.history)
        wanted = (rng.random(shape)[:, :, None] > np.cumsum(self._wishes[user], axis=1)[:, None, :-1]).sum(axis=2)
        trending, share = self._trends[0][day], self._trends[1][day]
        wanted[rng.random(shape) < share] = trending
        chosen = np.full(shape, -1)
        for category in range(20):
            inside = self._category[alive] == category
            if inside.any():
                weights = shares[inside] / shares[inside].sum()
                these = wanted == category
                chosen[these] = rng.choice(alive[inside], int(these.sum()), p=weights)
        length = rng.integers(0, self.world.history + 1, len(user))
        chosen[np.arange(self.world.history) >= length[:, None]] = -1
        return chosen


def _unit(vector: Float64) -> Float64:
    unit: Float64 = vector / np.linalg.norm(vector)
    return unit


def _factor(rng: np.random.Generator, appeal: Float64, rho: float) -> Float64:
    """Return e of everybody on a day: standard normal, and correlated with the appeal by rho."""
    e: Float64 = rho * appeal + np.sqrt(1.0 - rho**2) * rng.normal(size=len(appeal))
    return e
