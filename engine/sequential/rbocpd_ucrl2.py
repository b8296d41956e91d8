"""R-BOCPD-UCRL2: UCRL2 that begins anew whenever a change detector on any pair raises an alarm.

Alami, Mahfoud and Moulines, *Restarted Bayesian Online Change-point Detection for Non-Stationary Markov Decision
Processes*, PMLR 232 (2023), algorithm 2. Each pair (o, a) has a detector that is fed with the states that followed. An
alarm of one restarts everything. Where the text and this file differ, and why:

- Each pair has a second detector, on its rewards. The paper tests transitions alone, and a change of the rewards alone
  then goes unseen for ever.
- An alarm resets all detectors. The text leaves it open; a detector that goes on with its old anchor raises its alarm
  again.
- Each of the 2 O A detectors gets delta / (2 O A), so that delta bounds the probability of any false restart in a
  segment that does not change. The paper's own weight 1 / n restarts about a hundred times in 50 000 steps.

The bound on false restarts assumes that the symbols of a pair are independent with one distribution, as the successors
of a pair of a Markov decision process are. How fast a change is found counts in visits of the pairs that changed: one
that is never visited is never tested.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.sequential.change_detector import ChangeDetector, DetectorFactory
from engine.sequential.evi import Bool
from engine.sequential.ucrl2 import UCRL2, Arrays


class RBOCPDUCRL2(UCRL2):
    """UCRL2 restarted by change detectors on the transitions and on the rewards of each pair.

    Parameters
    ----------
    n_states, n_actions, delta, width_scale, allowed, unrewarded
        As of ``UCRL2``. ``delta`` bounds the probability of any false restart of a segment, too.
    detector
        Makes the detectors: of O categories for transitions, of two for rewards.
    test_rewards
        False tests transitions alone, as the paper does.

    Attributes
    ----------
    restarts : list of int
        Number of observations at each restart.
    """

    def __init__(
        self,
        n_states: int,
        n_actions: int,
        *,
        delta: float,
        detector: DetectorFactory,
        width_scale: float = 1.0,
        allowed: Bool | None = None,
        unrewarded: Bool | None = None,
        test_rewards: bool = True,
    ) -> None:
        super().__init__(
            n_states, n_actions, delta=delta, width_scale=width_scale, allowed=allowed, unrewarded=unrewarded
        )
        pairs = [(int(o), int(a)) for o, a in np.argwhere(self.allowed)]
        share = delta / (2 * n_states * n_actions)
        self._successors = {pair: detector(n_states, share) for pair in pairs}
        self._payments = {pair: detector(2, share) for pair in pairs if test_rewards and self.rewarded[pair[0]]}
        self.restarts: list[int] = []

    def observe(self, state: int, action: int, reward: float, next_state: int, coin: float = 0.5) -> None:
        """Take one step, and restart if a detector says that the process has changed.

        Parameters
        ----------
        state, action, reward, next_state
            As of ``UCRL2.observe``.
        coin
            A number drawn uniformly from [0, 1), independent of all else. The detector of rewards takes zeros and
            ones; it gets a one where ``coin < reward``, which happens with probability ``reward``. A reward of 0 or 1
            needs none.
        """
        super().observe(state, action, reward, next_state)
        pair = state, action
        alarm = self._successors[pair].update(next_state)
        if (payments := self._payments.get(pair)) is not None:
            alarm |= payments.update(int(coin < reward))
        if alarm:
            self.restarts.append(self.t)
            self.restart()

    def restart(self) -> None:
        """Forget every observation, in the detectors too; the clock goes on. A new episode begins."""
        for detector in self._detectors():
            detector.reset()
        super().restart()

    def _detectors(self) -> list[ChangeDetector]:
        return [*self._successors.values(), *self._payments.values()]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the whole state but the settings; ``restore`` goes on from it bit for bit."""
        saved = [detector.save() for detector in self._detectors()]
        return {
            **super().arrays(),
            "restarts": np.array(self.restarts, dtype=np.int64),
            "detectors": np.frombuffer(b"".join(saved), dtype=np.uint8),
            "detector_lengths": np.array([len(data) for data in saved], dtype=np.int64),
        }

    def restore(self, arrays: Arrays) -> None:
        """Take up a state that ``arrays`` gave; raises ``KeyError`` or ``ValueError`` where it does not fit."""
        detectors = self._detectors()
        data = np.asarray(arrays["detectors"], dtype=np.uint8).tobytes()
        ends = np.cumsum(np.asarray(arrays["detector_lengths"], dtype=np.int64)).tolist()
        if len(ends) != len(detectors) or ends[-1] != len(data):
            raise ValueError(f"{len(ends)} detectors in {len(data)} bytes were saved, expected {len(detectors)}")
        restarts = np.array(arrays["restarts"], dtype=np.int64)
        super().restore(arrays)
        for detector, start, end in zip(detectors, [0, *ends], ends, strict=False):
            detector.restore(data[start:end])
        self.restarts = restarts.tolist()
