"""A report directory is complete and can be moved."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from diffcr.records.record import make_record, read_record
from diffcr.report.report import write_report
from diffcr.report.sections import make_tables
from tests.evaluation.synthetic import synthetic_record


def test_links_are_relative_and_resolve_after_a_move(tmp_path: Path) -> None:
    record = synthetic_record(tmp_path / "first")
    write_report(record, tmp_path / "first", "A <title>")
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "first", moved)
    page = (moved / "report.html").read_text()
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(links) == 6
    assert all((moved / link).is_file() for link in links)
    assert str(tmp_path) not in page
    assert "A &lt;title&gt;" in page
    assert "The training was short." in page
    assert read_record(moved / "report.json") == record


def test_every_table_of_the_record_is_on_the_page(tmp_path: Path) -> None:
    record = synthetic_record(tmp_path)
    page = write_report(record, tmp_path).page.read_text()
    tables = make_tables(record)
    assert len(tables) == 7
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert table.title.split(",")[0].split(":")[0] in page


def test_a_record_from_before_a_section_says_nothing_of_it(tmp_path: Path) -> None:
    record = synthetic_record(tmp_path)
    results = {name: value for name, value in record.results.items() if name != "router_auc"}
    earlier = replace(record, results=results)
    titles = {table.title for table in make_tables(record)}
    missing = titles - {table.title for table in make_tables(earlier)}
    assert len(missing) == 1
    assert missing.pop() not in write_report(earlier, tmp_path).page.read_text()


def test_a_single_pictures_areas_have_no_error(tmp_path: Path) -> None:
    record = synthetic_record(tmp_path, layers=1, regions=2)
    areas = {"mean": [[0.25, 0.5]], "standard_error": None}
    values = {**record.results["router_auc"], **areas}
    (table,) = make_tables(replace(record, results={"router_auc": values}))
    assert table.rows == (("0", "0.250", "0.500"),)


def test_a_record_without_results_still_has_a_page(tmp_path: Path) -> None:
    report = write_report(make_record("evaluation", {}, {}, seeds={}), tmp_path)
    assert report.figures == ()
    assert "How this was measured" in report.page.read_text()


def test_the_page_names_the_method(tmp_path: Path) -> None:
    method = {"method": "tome", "compression_ratio": 0.3, "placement": "block"}
    record = make_record("evaluation", {"method": method}, {}, seeds={})
    page = write_report(record, tmp_path).page.read_text()
    assert "tome, compression_ratio 0.3, placement block" in page
