"""Explorations, one a file. A new one is a file and a line in the table here."""

from __future__ import annotations

from engine.exploration.bag import Bag
from engine.exploration.base import Exploration
from engine.exploration.cap import Cap
from engine.exploration.capped_igw import CappedIGW
from engine.exploration.cover import Cover
from engine.exploration.epsilon_greedy import EpsilonGreedy
from engine.exploration.falcon import Falcon
from engine.exploration.fastcb import FastCB
from engine.exploration.first import First
from engine.exploration.floor import Floor
from engine.exploration.lints import LinTS
from engine.exploration.linucb import LinUCB
from engine.exploration.regcb import RegCB
from engine.exploration.registry import EXPLORATIONS, make_exploration
from engine.exploration.smooth_igw import SmoothIGW
from engine.exploration.softmax import Softmax
from engine.exploration.spanner_igw import SpannerIGW
from engine.exploration.squarecb import SquareCB
from engine.exploration.uniform import Uniform

__all__ = [
    "EXPLORATIONS",
    "Bag",
    "Cap",
    "CappedIGW",
    "Cover",
    "EpsilonGreedy",
    "Exploration",
    "Falcon",
    "FastCB",
    "First",
    "Floor",
    "LinTS",
    "LinUCB",
    "RegCB",
    "SmoothIGW",
    "Softmax",
    "SpannerIGW",
    "SquareCB",
    "Uniform",
    "make_exploration",
]

EXPLORATIONS |= {
    Bag.kind: Bag,
    Cap.kind: Cap,
    CappedIGW.kind: CappedIGW,
    Cover.kind: Cover,
    EpsilonGreedy.kind: EpsilonGreedy,
    Falcon.kind: Falcon,
    FastCB.kind: FastCB,
    First.kind: First,
    Floor.kind: Floor,
    LinTS.kind: LinTS,
    LinUCB.kind: LinUCB,
    RegCB.kind: RegCB,
    SmoothIGW.kind: SmoothIGW,
    Softmax.kind: Softmax,
    SpannerIGW.kind: SpannerIGW,
    SquareCB.kind: SquareCB,
    Uniform.kind: Uniform,
}
