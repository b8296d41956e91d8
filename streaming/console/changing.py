"""What the console changes: alarms are acknowledged, champions promoted and rolled back, as the commands do it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from engine.config import Model
from streaming.config import Config
from streaming.holds import acknowledge, read_alarms, read_holds
from streaming.opening import open_log
from streaming.topics import OPERATOR, TRAINING

if TYPE_CHECKING:
    from training.promotion import Move


class AcknowledgeForm(Model):
    """An alarm that somebody has looked at."""

    alarm_id: str = Field(min_length=1, max_length=256)
    note: str = Field("", max_length=2_000)


class MoveForm(Model):
    """Another champion: first asked for, then confirmed.

    Without ``confirmed`` nothing is changed, and the answer says what would be. ``confirmed`` is the version of the
    registry that this answer named: what happens is what was confirmed, or nothing.
    """

    point: str = Field(min_length=1, max_length=256)
    kind: Literal["promote", "rollback"]
    version: str | None = Field(None, max_length=64, description="of the registry, to promote; none: the challenger")
    generation: int | None = Field(None, ge=1, description="to roll back to; none: the champion before")
    force: bool = Field(False, description="promote what the gate refused, or while an alarm holds promotions")
    confirmed: str | None = Field(None, max_length=64)


def point_of_alarm(config: Config, alarm_id: str) -> str | None:
    """Return the decision point of an alarm; ``None``: there is no such alarm."""
    with closing(open_log(config, {OPERATOR})) as log:
        return next((alarm.decision_point for alarm in read_alarms(log) if alarm.alarm_id == alarm_id), None)


def acknowledge_alarm(config: Config, form: AcknowledgeForm) -> dict[str, Any]:
    """Write that an alarm was looked at; once is enough."""
    with closing(open_log(config, {OPERATOR})) as log:
        alarms = read_alarms(log)
        alarm = next(alarm for alarm in alarms if alarm.alarm_id == form.alarm_id)
        if alarm.alarm_id in read_holds(log, alarms).acknowledged:
            return {"words": f"{alarm.alarm_id} was acknowledged before"}
        acknowledge(log, alarm, form.note)
        held = read_holds(log, alarms).words(alarm.decision_point)
    return {"words": f"{alarm.alarm_id} is acknowledged" + (f"; {held}" if held else "")}


def move_champion(config: Config, form: MoveForm, clock: Callable[[], int]) -> dict[str, Any]:
    """Say what a promotion or rollback would do, or do it once it is confirmed.

    Raises ``RegistryError``, ``LogError`` and ``SnapshotError``, as the commands do.
    """
    with closing(open_log(config, {TRAINING})) as log:
        would = _move(config, form, log, clock, dry_run=True)
        if form.confirmed is None or would.exit_code != 0 or would.generation is None:
            return {"done": False, **would.report()}
        if would.version != form.confirmed:
            words = f"nothing was changed: by now it would be version {would.version}, not {form.confirmed}; look again"
            return {"done": False, **would.report(), "words": words}
        move = _move(config, form, log, clock, dry_run=False)
        return {"done": move.exit_code == 0 and move.generation is not None, **move.report()}


def _move(config: Config, form: MoveForm, log: Any, clock: Callable[[], int], *, dry_run: bool) -> Move:
    # MLflow takes seconds to import, and who only looks needs none of it.
    from streaming.retraining import promotion_floor
    from training import promotion

    floor = promotion_floor(config, form.point, log)
    if form.kind == "rollback":
        return promotion.rollback(floor, clock(), generation=form.generation, dry_run=dry_run)
    return promotion.promote(
        floor,
        clock(),
        version=form.confirmed or form.version,
        force=form.force,
        dry_run=dry_run,
        hold=lambda: read_holds(log).words(form.point),
    )
