"""Means, and the paper's table with ours in it: which columns, whose figures, and what can't be compared."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

from dynet import results
from dynet.published import TABLES, Column
from dynet.results import Row
from dynet.validate import Quality

FIVE = TABLES[3].columns


def rows(columns: Sequence[Column], pictures: int = 2) -> list[Row]:
    """S is 1 dB better than its input, L 2 dB; a picture's number and its column's add to all of them."""
    return [
        Row(
            column=column,
            picture=f"{number}, a\n",
            depth=depth,
            quality=Quality(psnr=20.0 + at + number + gain, ssim=0.5),
            before=Quality(psnr=20.0 + at + number, ssim=0.25),
            seconds=gain,
        )
        for at, column in enumerate(columns)
        for number in range(pictures)
        for depth, gain in (("S", 1.0), ("L", 2.0))
    ]


def lines(table: results.Table) -> dict[str, list[str]]:
    return {results.named(line): [results.figure(one) for one in line.figures] for line in table.lines}


def test_all_five_columns_make_the_papers_table_with_its_average() -> None:
    table = results.table(rows(FIVE), TABLES[3])
    assert table.columns == ("SOTS", "Rain100L", "BSD68 σ=15", "BSD68 σ=25", "BSD68 σ=50", "average")
    said = lines(table)
    assert said["DyNet-L (published)"][-1] == "32.88/0.920"
    assert said["S (measured)"] == [
        "21.50/0.500",
        "22.50/0.500",
        "23.50/0.500",
        "24.50/0.500",
        "25.50/0.500",
        "23.50/0.500",
    ]
    assert said["L (measured)"][0] == "22.50/0.500"
    assert said["input (measured)"][-1] == "22.50/0.250"
    assert list(said)[-3:] == ["input (measured)", "S (measured)", "L (measured)"]


def test_without_all_of_them_there_is_no_average() -> None:
    table = results.table(rows(FIVE[:2]), TABLES[3])
    assert table.columns == ("SOTS", "Rain100L")
    assert lines(table)["AirNet (published)"] == ["27.94/0.962", "34.90/0.967"]


def test_sets_that_nothing_was_published_of_come_last() -> None:
    table = results.table(rows([Column(set="kodak", sigma=25), *FIVE]), TABLES[3])
    assert table.columns[-2:] == ("average", "kodak σ=25")
    assert lines(table)["AirNet (published)"][-1] == "-"
    assert lines(table)["S (measured)"][-2:] == ["24.50/0.500", "21.50/0.500"]
    alone = results.table(rows([Column(set="kodak", sigma=25)]), TABLES[3])
    assert [line.source for line in alone.lines] == [results.MEASURED] * 3
    assert alone.title == "The paper has no figures of these sets" and alone.caution == ""


def test_fewer_pictures_than_were_published_on_are_said() -> None:
    said = results.table(rows(FIVE), TABLES[3]).caution
    assert said == (
        "What was published is of other pictures: "
        "SOTS 2 here and 500 there, Rain100L 2 here and 100 there, BSD68 2 here and 68 there"
    )
    assert results.table(rows(FIVE[2:], 68), TABLES[0]).caution == ""


def test_the_figures_are_in_markdown_and_csv_too() -> None:
    table = results.table(rows(FIVE[:1]), TABLES[2])
    text = results.markdown(table, rows(FIVE[:1]), ["f32"])
    assert "| DyNet-L (published) | 32.07/0.982 |" in text
    assert "| L (measured) | 22.50/0.500 |" in text
    assert text.endswith("- f32\n")
    read = list(csv.DictReader(io.StringIO(results.table_csv(table))))
    assert read[-1] == {
        "method": "L", "source": "measured", "column": "SOTS", "psnr": "22.5000", "ssim": "0.50000", "pictures": "2"
    }  # fmt: skip
    assert read[0]["source"] == "arXiv 2404.02154, table 2" and read[0]["pictures"] == ""


def test_every_picture_is_a_line_whatever_its_name() -> None:
    (first, *rest) = csv.DictReader(io.StringIO(results.pictures_csv(rows([Column(set="kodak", sigma=25)]))))
    assert (first["picture"], first["sigma"], first["psnr"], first["input_psnr"]) == (
        "0, a\n",
        "25",
        "21.000000",
        "20.000000",
    )
    assert len(rest) == 3


def test_the_time_a_picture_takes_is_that_of_its_depth() -> None:
    assert results.seconds(rows(FIVE)) == {"S": 1.0, "L": 2.0}


def test_scores_are_means_over_the_pictures_that_have_one() -> None:
    known = [replace(row, scores={"niqe": float("nan"), "brisque": row.seconds}) for row in rows(FIVE[:2])]
    known[0] = replace(known[0], scores={"niqe": 3.0, "brisque": 3.0})
    head, lines = results.scores(known)
    assert head == ("set", "depth", "niqe", "brisque")
    assert lines[:2] == [("SOTS", "S", "3.000", "2.000"), ("SOTS", "L", "-", "2.000")]
    assert "| SOTS | S | 3.000 | 2.000 |" in results.markdown(results.table(known, TABLES[3]), known, [])
    assert results.pictures_csv(known).startswith(
        results.pictures_csv(rows(FIVE[:2])).splitlines()[0] + ",niqe,brisque"
    )
