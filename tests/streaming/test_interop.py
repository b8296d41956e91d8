"""``leeway import`` and ``leeway export``: what goes in comes out, twice is once, and nothing is dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from engine.records import Feedback
from streaming.cli import main
from streaming.config import load_config
from tests.training.formats.test_reading import GOLDEN, event
from tests.training.world import NAME, POINT, World
from training.archive import ArchiveReader, ArchiveWriter
from training.archive.columns import to_table
from training.archive.records import to_feedback
from training.formats import read_dsjson, write_dsjson


def leeway(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "leeway.yaml"
    path.write_text(
        json.dumps({"version": 1, "decision_points": {NAME: json.loads(POINT.model_dump_json(exclude={"reward"}))}})
        .replace('"publish_interval": 1000, ', "")
    )  # fmt: skip
    return path


def archived(config: Path) -> list[Feedback]:
    reader = ArchiveReader(load_config(config).archive_dir)
    return [feedback for batch in reader.batches(NAME) for feedback in to_feedback(batch, NAME)]


def without_salt(feedback: Feedback) -> Feedback:
    """The archive does not keep it."""
    copy = Feedback()
    copy.CopyFrom(feedback)
    copy.decision.salt = ""
    return copy


def test_the_archive_gives_feedback_back() -> None:
    feedbacks = World(0).stream(None, 40, excluded=True)
    table = to_table(POINT, feedbacks)
    rounded = [without_salt(each) for each in feedbacks]
    for mine, theirs in zip(rounded, to_feedback(table, NAME), strict=True):
        # Vectors are archived in float32, which is what an oracle sees.
        taste = mine.decision.context.named["taste"].numbers.values
        assert list(theirs.decision.context.named["taste"].numbers.values) == pytest.approx(list(taste), rel=1e-6)
        mine.decision.context.named["taste"].CopyFrom(theirs.decision.context.named["taste"])
        assert theirs == mine


def test_a_log_goes_in_and_comes_out_and_twice_is_once(config: Path, tmp_path: Path) -> None:
    feedbacks = World(1).stream(None, 60, excluded=True)
    log = tmp_path / "log.dsjson"
    log.write_text("".join(f"{line}\n" for line in write_dsjson(feedbacks)))
    first = leeway("import", log, "--format", "dsjson", "--config", config)
    assert (first.exit_code, first.stdout.strip()) == (
        0,
        f"60 feedbacks imported into {NAME}, 0 were there already, 0 put aside",
    )
    again = leeway("import", log, "--format", "dsjson", "--config", config, "--json")
    assert json.loads(again.stdout) == {"decision_point": NAME, "imported": 0, "known_already": 60, "put_aside": []}
    assert sorted(each.decision.decision_id for each in archived(config)) == sorted(
        each.decision.decision_id for each in feedbacks
    )

    out = tmp_path / "again.dsjson"
    assert leeway("export", out, "--format", "dsjson", "--config", config).exit_code == 0
    assert list(read_dsjson(out.read_text().splitlines(), NAME)) == archived(config)
    some = leeway("export", "--format", "vw", "--config", config, "--until-ms", feedbacks[10].decision.time_ms)
    assert some.stdout.count("shared") == 10

    # The archive is what retraining and `simulate --log` read.
    directory = load_config(config).archive_dir
    replayed = leeway("simulate", "--log", directory, "--config", config, "--json")
    assert json.loads(replayed.stdout)["seeds"][0]["estimates"]["ips"]["n"] == 60


def test_what_cannot_be_used_is_named_and_the_rest_imported(config: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.dsjson"
    good = list(write_dsjson(World(2).stream(None, 3)))
    log.write_text("\n".join([good[0], "{", event(EventId="alien"), good[1], event(_label_cost=None), good[2]]))
    result = leeway("import", log, "--format", "dsjson", "--config", config)
    assert result.exit_code == 0
    assert "3 feedbacks imported" in result.stdout
    assert f"{log}:2: put aside: is no JSON" in result.stderr
    assert f"{log}:5: put aside: has no _label_cost" in result.stderr
    assert "decision alien put aside: context.features.user_age: no such feature" in result.stderr
    log.write_text("{")
    assert leeway("import", log, "--format", "dsjson", "--config", config).exit_code == 1


def test_a_reward_out_of_range_is_put_aside(config: Path, tmp_path: Path) -> None:
    [feedback] = World(3).stream(None, 1)
    feedback.reward = 7.0
    log = tmp_path / "log.dsjson"
    log.write_text("\n".join(write_dsjson([feedback])))
    result = leeway("import", log, "--format", "dsjson", "--config", config)
    assert result.exit_code == 1
    assert "outside the declared reward.range [0.0, 1.0]" in result.stderr


def test_an_inferred_configuration_takes_the_whole_file(tmp_path: Path) -> None:
    log, config = GOLDEN / "personalizer.dsjson", tmp_path / "leeway.yaml"
    inferred = leeway("import", log, "--format", "dsjson", "--infer", "--decision-point", "drinks")
    assert inferred.exit_code == 0
    config.write_text(inferred.stdout)
    assert "personalizer.dsjson:3: put aside" in inferred.stderr
    result = leeway("import", log, "--format", "dsjson", "--config", config)
    assert "2 feedbacks imported into drinks, 0 were there already, 3 put aside" in result.stdout


@pytest.mark.parametrize(("kind", "name", "count"), [("vw", "cb_adf.txt", 2), ("obd", "open_bandit.csv", 3)])
def test_every_format_can_be_inferred_and_imported(kind: str, name: str, count: int, tmp_path: Path) -> None:
    config = tmp_path / "leeway.yaml"
    config.write_text(leeway("import", GOLDEN / name, "--format", kind, "--infer").stdout)
    result = leeway("import", GOLDEN / name, "--format", kind, "--config", config, "--json")
    assert json.loads(result.stdout)["imported"] == count, result.output
    assert (
        json.loads(leeway("import", GOLDEN / name, "--format", kind, "--config", config, "--json").stdout)[
            "known_already"
        ]
        == count
    )


def test_nothing_to_export_and_unknown_points_are_said(config: Path, tmp_path: Path) -> None:
    empty = leeway("export", "--format", "dsjson", "--config", config)
    assert (empty.exit_code, "no feedback of offers is archived" in empty.stderr) == (1, True)
    assert leeway("export", "--format", "dsjson", "--config", config, "--decision-point", "x").exit_code == 2
    assert leeway("import", tmp_path / "none", "--format", "vw", "--config", config).exit_code == 2


def test_an_archive_that_is_being_written_is_left_alone(config: Path) -> None:
    with ArchiveWriter(load_config(config).archive_dir, {NAME: POINT}):
        result = leeway("import", GOLDEN / "cb_adf.txt", "--format", "vw", "--config", config)
    assert result.exit_code == 1
    assert "written by another process" in result.stderr


def test_a_file_of_another_kind_is_no_archive(tmp_path: Path) -> None:
    import pyarrow as pa

    from engine.errors import ConfigError

    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"actions": [["a"]], "excluded": [[False]]}), path)
    with pytest.raises(ConfigError, match="has no column 'decision_id'"):
        list(to_feedback(pq.read_table(path), NAME))


def test_a_csv_table_is_inferred_imported_and_trained_on(tmp_path: Path) -> None:
    config, table = tmp_path / "leeway.yaml", tmp_path / "campaign.csv"
    # Whoever has a full basket wants the gift, whoever has not wants nothing; drawn at random, each alike.
    rows = [(n % 7, ("gift", "none")[n % 2]) for n in range(1_400)]
    table.write_text("basket,offer,bought\n" + "".join(f"{b},{o},{int((b > 3) == (o == 'gift'))}\n" for b, o in rows))
    said = ["--format", "csv"]
    for column in ("action=offer", "reward=bought", "propensity=uniform"):
        said += ["--column", column]
    config.write_text(leeway("import", table, *said, "--infer", "--decision-point", "mail").stdout)
    imported = leeway("import", table, *said, "--config", config)
    assert "1400 feedbacks imported into mail" in imported.stdout, imported.output
    trained = leeway("retrain", "--config", config, "--dry-run", "--json")
    assert trained.exit_code == 0, trained.output
    assert "promoted: better than the champion" in trained.output
    assert "(compared with what was logged)" in trained.output


@pytest.mark.parametrize(
    ("column", "words"),
    [("offer", "write ROLE=NAME"), ("prize=offer", "a role of action, reward"), ("action=", "write ROLE=NAME")],
)
def test_a_column_without_a_role_is_refused(column: str, words: str, tmp_path: Path) -> None:
    result = leeway("import", tmp_path / "x.csv", "--format", "csv", "--column", column, "--infer")
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


def test_columns_are_for_csv_alone(tmp_path: Path) -> None:
    result = leeway("import", tmp_path / "x", "--format", "vw", "--column", "action=a", "--infer")
    assert (result.exit_code, "--column is for --format csv" in result.stderr) == (2, True)
