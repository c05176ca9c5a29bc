"""The command line, called in process: what it prints, what it refuses, its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, ipc

import tidegauge as tg
from tidegauge import cli, cuda, metrics
from tidegauge.cuda.cupy_device import list_devices
from tidegauge.engine import DeviceError

pytest.importorskip("rich")

DAY = 86_400_000_000
START = int(np.datetime64("2013-04-01", "us").astype(np.int64))


def traffic(*, n: int = 4_000, seed: int = 0, shift: float = 0.0, first_day: int = 0) -> pa.Table:
    """Four days of predictions with their labels."""
    random = np.random.default_rng(seed)
    score = random.beta(2, 5, n)
    time = START + first_day * DAY + np.sort(random.integers(0, 4 * DAY, n))
    return pa.table(
        {
            "flight_id": pa.array(np.arange(n) + first_day * n),
            "departure": pa.array(time).cast(pa.timestamp("us", tz="UTC")),
            "origin": random.choice(["EWR", "JFK", "LGA"], n),
            "distance": random.normal(1_000 * (1 + shift), 200, n),
            "wind": pa.array(random.gamma(2, 5, n), mask=random.random(n) < 0.1 + shift / 4),
            "p_late": score,
            "late": random.random(n) < score,
        }
    )


PAIR = ("reference.parquet", "current.parquet")
ROLES = [
    *("--task", "binary", "--prediction-id", "flight_id", "--timestamp", "departure"),
    *("--prediction-score", "p_late", "--label", "late", "--segments", "origin"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of every kind, and a reference."""
    folder = tmp_path_factory.mktemp("tables")
    reference, current = traffic(), traffic(seed=1, shift=1.0, first_day=4)
    for name, table in (("reference", reference), ("current", current)):
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=1_000)
        csv.write_csv(table, folder / f"{name}.csv")
        with ipc.new_file(folder / f"{name}.arrow", table.schema) as file:
            file.write_table(table, max_chunksize=1_500)
        with ipc.new_stream(folder / f"{name}.ipc", table.schema) as stream:
            stream.write_table(table)
    pq.write_table(current.drop_columns(["late"]), folder / "predictions.parquet")
    pq.write_table(current.select(["flight_id", "late"]), folder / "labels.parquet")
    assert (
        cli.main(
            ["fit", str(folder / "reference.parquet"), "--out", str(folder / "r.tide"), *ROLES]
        )
        == 0
    )
    return folder


@pytest.fixture
def ask(folder, capsys, monkeypatch):
    """Run a command beside the files: exit code, stdout, stderr."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(arguments)
        return code, *capsys.readouterr()

    return run


def document(answer: tuple[int, str, str]) -> dict:
    """The one JSON document of an answer that went well."""
    code, out, err = answer
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    return json.loads(out)


def values(found: dict, metric: str) -> dict[str, float]:
    """Value of a metric by column."""
    return {row["column"]: row["value"] for row in found["metrics"] if row["metric"] == metric}


def width(row: dict) -> int:
    """Days of a row's window."""
    start, end = (np.datetime64(row[name][:10]) for name in ("window_start", "window_end"))
    return int((end - start).astype(int))


def test_compare_shows_what_moved(ask, tmp_path):
    page = tmp_path / "new" / "drift.html"
    code, out, err = ask("compare", "reference.parquet", "current.parquet", "--html", str(page))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    drift = lines.index(next(line for line in lines if line.startswith("Drift")))
    first = next(line for line in lines[drift + 2 :] if "─" not in line)
    assert first.split()[0] in ("distance", "departure", "flight_id")
    assert "missing_rate" in out
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")


def test_compare_is_the_library_s_own_answer(ask):
    found = document(ask("compare", "reference.parquet", "current.parquet", "--json"))
    expected = tg.compare(traffic(), traffic(seed=1, shift=1.0, first_day=4)).to_arrow()
    assert found["metrics"] == json.loads(json.dumps(expected.to_pylist(), default=str))


def test_the_device_asked_for_counts_or_says_in_one_line_why_not(ask, monkeypatch):
    def open_engine(host):
        asked.append(host)
        raise DeviceError("device 'cuda': there is none\nhere")

    asked = []
    monkeypatch.setattr(cuda, "open_engine", open_engine)
    code, out, err = ask("compare", "reference.csv", "current.csv", "--device", "cuda")
    assert (code, out, len(asked)) == (2, "", 1)
    assert err == "tidegauge compare: device 'cuda': there is none here\n"
    wanted = document(ask("compare", "reference.csv", "current.csv", "--json"))
    assert (
        document(ask("compare", "reference.csv", "current.csv", "--device", "auto", "--json"))
        == wanted
    )
    assert len(asked) == 2


@pytest.mark.parametrize("ending", ["csv", "arrow", "ipc"])
def test_every_file_gives_the_same_answer(ask, ending):
    columns = ["--columns", "distance,wind,origin", "--metric", "psi,missing_rate", "--json"]
    first = document(ask("compare", "reference.parquet", "current.parquet", *columns))
    again = document(ask("compare", f"reference.{ending}", f"current.{ending}", *columns))
    assert again["metrics"] == first["metrics"]
    assert set(values(first, "psi")) == {"distance", "wind", "origin"}


def test_chosen_metrics_and_columns_alone_are_shown(ask):
    found = document(
        ask(
            "compare",
            "reference.csv",
            "current.csv",
            "--metric",
            "psi",
            "--columns",
            "wind",
            "--json",
        )
    )
    assert [(row["metric"], row["column"]) for row in found["metrics"]] == [("psi", "wind")]


def test_fit_reads_a_schema_and_writes_one(ask, tmp_path):
    fitted = document(
        ask("fit", "reference.csv", "--out", str(tmp_path / "a.tide"), *ROLES, "--json")
    )
    schema = tmp_path / "schema.toml"
    schema.write_text(fitted["schema"])
    again = document(
        ask(
            "fit",
            "reference.csv",
            "--out",
            str(tmp_path / "b.tide"),
            "--schema",
            str(schema),
            "--json",
        )
    )
    assert again["schema"] == fitted["schema"]
    assert 'segments = ["origin"]' in fitted["schema"]
    assert tg.Reference.load(tmp_path / "b.tide").schema.label == "late"


def test_fit_reads_in_batches(ask, tmp_path, monkeypatch):
    sizes = []
    fit = tg.Reference.fit
    monkeypatch.setattr(cli, "ROWS", 300)
    monkeypatch.setattr(
        tg.Reference,
        "fit",
        lambda tables, schema, **options: fit(
            [t for t in tables if sizes.append(t.num_rows) is None], schema, **options
        ),
    )
    small = tmp_path / "small.tide"
    document(ask("fit", "reference.parquet", "--out", str(small), *ROLES, "--json"))
    assert sum(sizes) == tg.Reference.load(small).n_rows == 4_000
    assert max(sizes) <= 300


def test_report_joins_labels(ask):
    found = document(
        ask("report", "r.tide", "predictions.parquet", "--labels", "labels.parquet", "--json")
    )
    account = found["account"]
    assert (account["predictions"], account["matched"], account["pending"]) == (4_000, 4_000, 0)
    accuracy = [row for row in found["metrics"] if row["metric"] == "accuracy" and width(row) == 1]
    starts = sorted({row["window_start"] for row in accuracy})
    assert [start[:10] for start in starts] == [f"2013-04-0{day}" for day in (5, 6, 7, 8)]
    segments = {row["segment"] for row in found["metrics"]}
    assert segments == {"all", "origin=EWR", "origin=JFK", "origin=LGA"}
    table = traffic(seed=1, shift=1.0, first_day=4)
    right = (table["p_late"].to_numpy() >= 0.5) == table["late"].to_numpy()
    n = sum(row["n"] for row in accuracy if row["segment"] == "all")
    mean = sum(row["n"] * row["value"] for row in accuracy if row["segment"] == "all") / n
    assert (n, mean) == (4_000, pytest.approx(right.mean()))


def test_slices_finds_the_segment_that_has_changed(ask, folder):
    table = pq.read_table(folder / "current.parquet").to_pandas()
    changed = table["origin"] == "JFK"
    table.loc[changed, "late"] = ~(table.loc[changed, "p_late"] > 0.5)
    table.to_parquet(folder / "changed.parquet")
    asked = ("slices", "r.tide", "changed.parquet", "--metric", "accuracy")
    found = document(ask(*asked, "--json"))["slices"]
    assert (found[0]["segment"], found[0]["found"]) == ("origin=JFK", True)
    code, out, _ = ask(*asked, "--against", "rest")
    assert code == 0
    assert "origin=JFK" in out
    assert "slices tested are found" in out
    assert ask("slices", "r.tide", "changed.parquet", "--metric", "mae")[0] == 2


def test_explain_says_what_moved_the_model(ask, folder):
    (folder / "lateness.py").write_text(
        "def model(rows):\n    return rows[:, 0] / 4_000\n\n"
        "def broken(rows):\n    raise ValueError('no such airport')\n"
    )
    features = ("--features", "distance,wind")
    fitted = ("fit", "reference.parquet", "--out", "rows.tide", *ROLES, *features)
    assert ask(*fitted, "--sample-rows", "500")[0] == 0
    asked = ("explain", "rows.tide", "current.parquet", "--model", "lateness:model")
    found = document(ask(*asked, "--json"))
    first, second = found["causes"]
    assert (first["column"], second["column"]) == ("distance", "wind")
    assert first["importance"] == pytest.approx(0.25, rel=0.1)  # a move of 1,000, in fourths
    assert second["importance"] == 0
    moved = {part["name"]: part["value"] for part in found["parts"] if part["kind"] == "feature"}
    change = found["shift"]["after"] - found["shift"]["before"]
    assert sum(moved.values()) == pytest.approx(change)
    assert moved["distance"] == pytest.approx(0.25, rel=0.1)
    code, out, _ = ask(*asked, "--loss", "brier_score")
    assert code == 0
    assert "importance" in out
    assert "mean brier_score" in out
    assert "distance" in out
    for model, told in (
        ("lateness:broken", "no such airport"),
        ("lateness:nothing", "has no function 'nothing'"),
        ("lateness", "--model is a file that ends in .onnx or MODULE:FUNCTION"),
        ("nothing.onnx", "no such ONNX file: nothing.onnx"),
    ):
        code, out, err = ask(*asked[:-1], model)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert told in err
    code, _, err = ask("explain", "r.tide", *asked[2:])
    assert code == 2
    assert "sample_rows" in err


def test_report_takes_a_wider_window(ask):
    found = document(ask("report", "r.tide", "predictions.parquet", "--window", "2d", "--json"))
    assert {width(row) for row in found["metrics"] if row["segment"] == "all"} <= {2, 4, 6}
    assert 2 in {width(row) for row in found["metrics"]}


def test_report_shows_tables_and_writes_the_page(ask, tmp_path):
    page = tmp_path / "report.html"
    code, out, _ = ask(
        "report", "r.tide", "predictions.parquet", "--labels", "labels.parquet", "--html", str(page)
    )
    assert code == 0
    assert all(title in out for title in ("Account", "Drift", "Integrity", "Performance"))
    assert "2013-04-06" in out
    assert page.stat().st_size > 1_000


def test_report_shows_fairness_and_what_estimates_cannot_see(ask):
    roles = (*ROLES, "--protected", "origin")
    assert ask("fit", "reference.parquet", "--out", "fair.tide", *roles)[0] == 0
    code, out, _ = ask("report", "fair.tide", "predictions.parquet", "--labels", "labels.parquet")
    assert code == 0
    assert "Fairness" in out
    assert "demographic_parity_difference" in out
    assert "origin=JFK" in out
    assert "(concept drift)" in " ".join(out.split())


def test_tables_fit_a_narrow_terminal(ask, monkeypatch):
    from rich.console import Console

    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    narrow = re.sub(r"\x1b\[[\d;]*m", "", ask("compare", "reference.parquet", "current.parquet")[1])
    monkeypatch.setenv("COLUMNS", "140")
    wide = ask("compare", "reference.parquet", "current.parquet")[1]
    assert "█" in wide
    assert "█" not in narrow
    assert "noise floor" in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow


def test_names_cannot_paint_the_terminal(ask, tmp_path):
    table = pa.table({"\x1b[31m[bold]a": np.arange(100.0)})
    pq.write_table(table, tmp_path / "a.parquet")
    code, out, _ = ask("compare", str(tmp_path / "a.parquet"), str(tmp_path / "a.parquet"))
    assert code == 0
    assert "\x1b" not in out
    assert "�[31m[bold]a" in out
    code, _, err = ask("compare", *[str(tmp_path / "a.parquet")] * 2, "--columns", "b")
    assert code == 2
    assert "\x1b" not in err


def test_metrics_lists_the_registry(ask):
    found = document(ask("metrics", "--json"))["metrics"]
    assert [row["name"] for row in found] == list(tg.metrics.names())
    assert all(row["meaning"] for row in found)
    code, out, _ = ask("metrics")
    assert code == 0
    assert all(name in out for name in ("psi", "missing_rate", "roc_auc"))


OWN = """
import numpy as np

from tidegauge import metrics


def far(distance):
    return distance > 1_200


if "far_share" not in metrics.names():

    @metrics.metric("far_share", worse="either", bounds=(0, 1), family="integrity")
    def far_share(current: metrics.Bins) -> np.ndarray:
        \'\'\'Share of the rows in the last bin that is not the missing one.\'\'\'
        return current.shares[..., -2]
"""


@pytest.fixture
def own(folder, monkeypatch):
    """A user's module beside the files: a metric, and the function of a derived feature."""
    (folder / "own_numbers.py").write_text(OWN)
    schema = tg.Schema(
        features={"distance": None, "far": tg.derived(abs, ["distance"], kind="categorical")}
    )
    (folder / "own.toml").write_text(schema.to_toml())
    monkeypatch.setattr(metrics.registry, "_REGISTRY", dict(metrics.registry._REGISTRY))
    yield ("--import", "own_numbers"), ("--derived", "far=own_numbers:far")
    sys.modules.pop("own_numbers", None)


def test_a_module_of_the_user_s_brings_metrics(ask, own):
    imported, _ = own
    code, _, err = ask("compare", *PAIR, "--metric", "far_share")
    assert (code, err) == (2, err)
    assert "unknown metric 'far_share'" in err
    found = document(ask("compare", *PAIR, "--metric", "far_share", "--json", *imported))
    assert set(values(found, "far_share")) >= {"distance", "origin"}
    assert "far_share" in ask("metrics", *imported)[1]
    assert "far_share" in ask("compare", *PAIR, "--metric", "far_share", *imported)[1]


def test_functions_of_derived_features_are_handed_in(ask, own):
    _, derived = own
    code, _, err = ask("compare", *PAIR, "--schema", "own.toml")
    assert code == 2
    assert "never stored: 'far' (of distance)" in err
    found = document(ask("compare", *PAIR, "--schema", "own.toml", "--json", *derived))
    assert set(values(found, "psi")) == {"distance", "far"}
    chosen = ["--schema", "own.toml", "--columns", "far", "--json", *derived]
    assert set(values(document(ask("compare", *PAIR, *chosen)), "psi")) == {"far"}
    fitted = ["fit", PAIR[0], "--schema", "own.toml", "--out", "own.tide", "--json"]
    document(ask(*fitted, *derived))
    assert ask("report", "own.tide", PAIR[1])[0] == 2
    found = document(ask("report", "own.tide", PAIR[1], "--window", "all", "--json", *derived))
    assert "far" in values(found, "psi")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--import", "nowhere_at_all"], "module nowhere_at_all: ModuleNotFoundError"),
        (["--derived", "far"], "--derived is NAME=MODULE:FUNCTION, got 'far'"),
        (["--derived", "far=own_numbers:near"], "module own_numbers has no function 'near'"),
        (["--derived", "far=own_numbers:far", "--derived", "x=own_numbers:far"], "no feature 'x'"),
    ],
)
def test_what_cannot_be_imported_is_one_line(ask, own, options, told):
    code, out, err = ask("compare", *PAIR, "--schema", "own.toml", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_devices_names_the_instruction_set(ask):
    found = document(ask("devices", "--json"))
    assert found["cpu"]["instructions"] in ("scalar", "avx2", "avx512", "neon")
    assert found["cpu"]["cores"] >= 1
    code, out, _ = ask("devices")
    assert code == 0
    assert found["cpu"]["instructions"] in out
    assert found["note"] in out


def test_cuda_devices_come_from_cupy(monkeypatch):
    class Runtime:
        CUDARuntimeError = RuntimeError

        def getDeviceCount(self):
            return 1

        def getDeviceProperties(self, at):
            return {"name": b"H100", "totalGlobalMem": 80 * 2**30, "major": 9, "minor": at}

    class Cupy:
        class cuda:
            runtime = Runtime()

    monkeypatch.setitem(sys.modules, "cupy", Cupy)
    devices, note = list_devices()
    assert devices == [{"name": "H100", "memory_gib": 80.0, "capability": "9.0"}]
    assert "1" in note


def test_version(ask):
    code, out, _ = ask("--version")
    assert (code, out) == (0, f"tidegauge {tg.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("compare nowhere.csv current.csv", "nowhere.csv: no such file"),
        ("compare . current.csv", "unknown file ending"),
        ("compare r.tide current.csv", ".parquet, .csv, .arrow"),
        ("compare reference.csv current.csv --metric psl", "did you mean psi"),
        ("compare reference.csv current.csv --columns dist", "'distance'"),
        ("compare reference.csv current.csv --columns dist", "flight_id, departure"),
        ("compare reference.csv broken.parquet", "broken.parquet: cannot be read"),
        ("compare reference.csv empty.csv", "empty.csv: cannot be read"),
        ("compare reference.csv current.csv --schema nowhere.toml", "nowhere.toml: No such file"),
        ("compare reference.csv current.csv --schema broken.toml", "TOML"),
        ("fit reference.csv --out x.tide --task ranking", "'ranking'"),
        ("fit reference.csv --out x.tide --task binary", "prediction_score"),
        ("fit reference.csv --out x.tide --timestamp when", "'when'"),
        ("fit reference.csv --out x.tide --schema broken.toml --label late", "not both"),
        ("fit reference.csv", "--out"),
        ("report reference.csv current.csv", "reference.csv"),
        ("report r.tide current.csv --window soon", "soon"),
        ("report r.tide labels.parquet", "departure"),
        ("report r.tide current.csv --metric mae", "mae"),
        ("sail", "sail"),
        ("", "COMMAND"),
    ],
)
def test_bad_input_is_one_line(ask, folder, arguments, told):
    (folder / "broken.parquet").write_bytes(b"PAR1 this is not a table")
    (folder / "empty.csv").write_bytes(b"")
    (folder / "broken.toml").write_text("task = = binary")
    code, out, err = ask(*arguments.split())
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert told in err
    assert not (folder / "x.tide").exists()


@pytest.mark.parametrize(
    ("module", "arguments", "name"),
    [
        ("rich.console", "metrics", "cli"),
        ("plotly", "compare reference.csv current.csv --json --html a.html", "plots"),
        ("sklearn", "demo --json", "demo"),
    ],
)
def test_a_missing_extra_is_one_line(ask, monkeypatch, module, arguments, name):
    monkeypatch.setitem(sys.modules, module, None)
    code, out, err = ask(*arguments.split())
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(rf"pip install ['\"]tidegauge\[{name}\]['\"]", err)


def test_json_needs_no_extra(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert document(ask("compare", "reference.csv", "current.csv", "--json"))["metrics"]


def test_a_bug_keeps_its_traceback(ask, monkeypatch):
    def broken(_):
        raise ZeroDivisionError

    monkeypatch.setitem(cli.COMMANDS, "devices", cli.Command(broken, ()))
    with pytest.raises(ZeroDivisionError):
        ask("devices")


def test_progress_is_shown_to_people_only(folder, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    from rich.progress import Progress

    monkeypatch.setattr(Progress, "advance", lambda _, task, size: shown.append(size))
    path = str(folder / "reference.parquet")
    assert cli.main(["compare", path, path]) == 0
    assert sum(shown) == 8_000
    shown.clear()
    assert cli.main(["compare", path, path, "--json"]) == 0
    assert shown == []


def test_the_program_itself_runs():
    done = subprocess.run(
        [sys.executable, "-m", "tidegauge.cli", "sail"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tidegauge: ")
