"""Tests of the rendered reports: nothing that failed or was left out may look like a pass."""
import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from parity.render import number, page, share, table
from parity.report import LEVELS, VERDICTS, Check, Place, Report, load
from training.errors import UserError

HOSTILE = "<script>alert('x')</script>&\"[bold]" + "features.denseblock." * 20


def check(verdict="numerics", level="layers", tensor="conv1", error=8.0, floor=4.0, budget=64.0, **rest):
    return Check(verdict, level, tensor, error, error / 2, floor, budget, **rest)


def passing(title="resnet18"):
    return Report(title, [check(verdict, level) for verdict in VERDICTS for level in LEVELS])


def failing(title="vgg11"):
    report = passing(title)
    bad = check(level="gradients", tensor="fc.bias", error=640.0, note="the wrong sign")
    report.checks += [bad, check("structure", "layers", "conv2", math.inf, note="shape [3] and [4]")]
    report.places = [Place("numerics", "gradients", "layer1.0", False, bad, "runs/reproduction")]
    report.flips = [{"where": "layer1.relu", "kind": "ReLU", "units": 3, "margin": 1.2345},
                    {"where": "pool", "kind": "max-pool", "units": 1, "margin": None}]
    report.environment = {"command": "compare resnet18", "seed": 7, "versions": {"torch": "2.13.0"},
                          "precision": ["float64", "float32"]}
    return report


def skipping(title="lenet"):
    return Report(title, [check("structure", "eval", "output")],
                  {"structure steps": "no memory", "numerics gradients": "too slow", "all of it": "because"})


def printed(reports, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(table(reports))
    return console.file.getvalue()


VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """The parsed page: every element with its attributes, ids, links, and the text of table rows."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self.text, self._open = [], [], "", []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"
        self.rows = [" ".join(row.split()) for row in self.rows]

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "tr" in self._open:
            self.rows[-1] += " " + data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def all(self, attribute):
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]

    def row(self, *words):
        """The one row that begins with these words."""
        found = [row for row in self.rows if row.split()[:len(words)] == list(words)]
        assert len(found) == 1, (words, self.rows)
        return found[0]


ALL = [[passing()], [failing()], [skipping()], [Report("nothing")],
       [passing(), failing(), skipping(), Report("nothing")]]


@pytest.mark.parametrize("reports", ALL)
def test_page_is_whole_and_loads_nothing(reports):
    html = Page(page(reports))
    assert {tag for tag, _ in html.elements}.isdisjoint(
        {"script", "link", "iframe", "img", "image", "object", "embed", "base", "use"})
    assert all(target.startswith("#") for target in html.all("href"))
    assert not {"src", "srcset", "xlink:href", "data", "action", "background"} & {
        name for _, attributes in html.elements for name in attributes}
    assert not re.search(r"url\(|@import", page(reports))
    assert len(set(html.all("id"))) == len(html.all("id"))
    assert {target[1:] for target in html.all("href")} <= set(html.all("id"))
    assert {name for names in html.all("aria-labelledby") for name in names.split()} <= set(html.all("id"))
    assert all("scope" in cell for cell in html.named("th"))
    for report in reports:
        assert report.title in html.text


def test_page_shows_every_net_and_level():
    html = Page(page([passing("first"), passing("second")]))
    for row in (f"{verdict} {level} ✓ PASS 0 of 1 conv1" for verdict in VERDICTS for level in LEVELS):
        assert sum(shown.startswith(row) for shown in html.rows) == 2
    assert html.row("first").count("✓ PASS 8 u") == html.row("second").count("✓ PASS 8 u") == 26
    assert "FAIL" not in html.text.replace("0 fail", "")
    assert not any("open" in attributes for attributes in html.named("details"))


def test_page_of_a_failure():
    html = Page(page([passing(), failing(), Report("nothing")]))
    assert "✗ FAIL: 3 nets: 1 pass, 1 fail, 1 not judged" in " ".join(html.text.split())
    assert html.row("vgg11").count("✗ FAIL") == 2 and html.row("resnet18").count("✗ FAIL") == 0
    assert "✗ FAIL different" in html.row("vgg11")
    assert "open" not in html.named("details")[0] and "open" in html.named("details")[1]
    row = next(row for row in html.rows if row.startswith("numerics gradients ✗ FAIL"))
    assert row == "numerics gradients ✗ FAIL 1 of 2 fc.bias (the wrong sign) 640 u 320 u 4 u 64 u 10 times"
    row = next(row for row in html.rows if row.startswith("structure layers ✗ FAIL"))
    assert row == ("structure layers ✗ FAIL 1 of 2 conv2 (shape [3] and [4]) different different 4 u 64 u "
                   "inf")
    for text in (*map(str, failing().failures), str(failing().places[0]), "runs/reproduction"):
        assert text in html.text
    assert html.row("layer1.relu", "ReLU").endswith("3 1.23 u")
    assert html.row("pool").endswith("1 inf")  # what JSON makes of infinity
    for row in ("command compare resnet18", "seed 7", "versions: torch 2.13.0",
                "precision float64, float32"):
        assert row in html.rows


def test_what_was_not_judged_is_no_pass():
    html = Page(page([skipping(), Report("nothing")]))
    text = " ".join(html.text.split())
    assert "not judged: 2 nets: 1 pass, 0 fail, 1 not judged; 3 levels not judged" in text
    assert html.row("lenet") == "lenet ✓ PASS 8 u not judged not judged"
    assert html.row("nothing") == "nothing not judged not judged not judged"
    assert html.row("structure", "steps") == "structure steps not judged no memory"
    assert html.row("numerics", "gradients") == "numerics gradients not judged too slow"
    assert html.row("all", "of") == "all of it not judged because"
    assert html.row("numerics", "(float32)") == "numerics (float32) not judged 0 0 2"


def test_a_level_skipped_in_both_verdicts():
    report = Report("lenet", [check("structure", "eval")], {"steps": "random"})
    html = Page(page([report, report]))
    assert "4 levels not judged" in html.text
    assert sum(row == f"{verdict} steps not judged random" for row in html.rows for verdict in VERDICTS) == 4
    assert html.rows.count("lenet ✓ PASS 8 u not judged not judged") == 2
    assert "not judged: steps: random" in printed([report])


def test_partly_judged():
    report = Report("net", [check("structure", "steps")], {"structure steps": "only one step"})
    assert "✓ PASS in part not judged : only one step" in Page(page([report])).row("structure", "steps")
    assert re.search(r"^ steps .*PASS\*", printed([report]), re.M)
    assert re.search(r"^ net +12%\*", printed([report, report]), re.M)


def test_hostile_names_stay_text():
    report = Report(HOSTILE, [check(tensor=HOSTILE, error=99.0, note=HOSTILE)], {HOSTILE: HOSTILE},
                    [{"where": HOSTILE, "kind": HOSTILE, "units": 1, "margin": 1.0}],
                    [Place("numerics", "layers", HOSTILE, True, check(tensor=HOSTILE), HOSTILE)],
                    {HOSTILE: {HOSTILE: HOSTILE}})
    for reports in ([report], [report, passing()]):
        html = page(reports)
        assert "<script" not in html and "&lt;script&gt;" in html
        assert HOSTILE in Page(html).text
        assert all(len(line) <= 80 for line in printed(reports).splitlines())
        assert "[bold]" in "".join(printed(reports).split())


def test_codes_for_the_terminal_are_shown_as_escapes():
    evil = "\x1b[31mred\r\n\u202e\x9b\udcff"
    report = Report(evil, [check(tensor=evil, error=99.0, note=evil, unit=evil)], {evil: evil},
                    [{"where": evil, "kind": evil, "units": 1, "margin": 1.0}],
                    [Place("numerics", "layers", evil, True, check(tensor=evil), evil)],
                    {evil: {evil: [evil]}})
    for text in (printed([report], 300), printed([report, passing()], 300), page([report])):
        assert all(c.isprintable() or c in "\n✓✗" for c in text)
        assert r"\x1b[31mred\r\n\u202e\x9b\udcff" in text


def paths(value, start=()):
    """Of plain data and of everything in it."""
    yield start
    names = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for name in names:
        yield from paths(value[name], (*start, name))


def replaced(value, path, new):
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


def test_an_edited_report_is_shown_or_refused(tmp_path):
    bad = check(error=math.inf, note="the wrong sign")
    whole = Report("net", [bad], {"steps": "random"},
                   [{"where": "relu", "kind": "ReLU", "units": 3, "margin": 1.5}],
                   [Place("numerics", "layers", "conv1", False, bad, "folder")],
                   {"seed": 7, "versions": {"torch": "2.13.0"}, "precision": ["float64"]}).to_json()
    refused = []
    for path in paths(whole):
        for new in (None, True, "x", -1, 1.5, [], {}, [1]):
            (tmp_path / "x.json").write_text(json.dumps(replaced(whole, path, new)))
            try:
                report = load(tmp_path / "x.json")
            except UserError as error:
                assert "x.json is no parity report: report" in str(error)
                refused.append(path)
                continue
            assert printed([report]) and page([report])
            assert Report.from_json(report.to_json()).to_json() == report.to_json()
    never = {path for path in paths(whole) if path not in refused}
    assert never == {("environment", name) for name in whole["environment"]}


@pytest.mark.parametrize("change, words", [
    ({"title": 3}, "report.title must be a text, not 3"),
    ({"checks": "x"}, "report.checks must be a list, not 'x'"),
    ({"checks": [None]}, r"report.checks\[0\] must be a dictionary, not null"),
    ({"more": 1}, "report has 'more'; allowed are title, checks"),
    ({"environment": {"a": [["b"]]}}, "report.environment.a must be of texts and numbers, not a list"),
    ({"flips": [{"where": "", "kind": "", "units": 1}]}, r"report.flips\[0\] has no 'margin'"),
])
def test_what_is_wrong_with_a_report_is_named(change, words):
    with pytest.raises(UserError, match=words):
        Report.from_json({**passing().to_json(), **change})


def test_a_report_with_the_name_of_any_file_is_read_again(tmp_path):
    Report("\udcff").save(tmp_path / "x.json")
    assert load(tmp_path / "x.json").title == r"\udcff"


def test_long_lists_are_cut():
    report = Report("net", [check(tensor=f"tensor{i}.", error=99.0) for i in range(53)],
                    flips=[{"where": f"relu{i}", "kind": "ReLU", "units": 1, "margin": 1} for i in range(52)])
    html = Page(page([report]))
    assert "and 3 more" in html.text and "and 2 more" in html.text
    assert "layers tensor49.:" in html.text and "layers tensor50.:" not in html.text
    assert "and 43 more failures" in printed([report])


def test_plots():
    checks = [check(tensor="zero", error=0.0), check(tensor="small", error=1e-3), check(tensor="right"),
              check(tensor="wrong", error=5e3), check(tensor="other", error=math.inf)]
    html = Page(page([Report("net", checks + [check(level="eval")])]))
    assert len(html.named("svg")) == 1  # "eval" has no plot
    dots = html.named("circle")[1:]     # the first is the legend's
    crosses = [path for path in html.named("path") if path["class"] == "cross"][1:]
    assert (len(dots), len(crosses)) == (3, 2)
    heights = {name: float(dot["cy"]) for name, dot in zip(("zero", "small", "right"), dots)}
    heights.update({name: float(re.match(r"M[\d.]+ ([\d.]+)m", path["d"]).group(1))
                    for name, path in zip(("wrong", "other"), crosses)})
    assert heights["zero"] > heights["small"] > heights["right"] > heights["wrong"] > heights["other"]
    line = next(path["d"] for path in html.named("path") if path["class"] == "budget" and
                path["d"].count("M") == 5)
    assert heights["right"] > float(line.split("h")[0].split()[1]) > heights["wrong"]
    # Log scale: from 1e-3 to 8 is as far as from 8 to 6.4e4.
    per_decade = (heights["small"] - heights["right"]) / math.log10(8e3)
    assert heights["right"] - heights["wrong"] == pytest.approx(per_decade * math.log10(625), abs=0.2)
    assert "1 with no error at all, drawn at 0" in html.text
    assert "wrong: 5e+03 u" in html.text and "other: different u" in html.text


@pytest.mark.parametrize("error", [0.0, 5e-324, 1.7e308, math.inf, math.nan])
def test_plots_of_extreme_numbers(error):
    report = Report("net", [check(error=error, floor=0.0, budget=0.0)])
    heights = [float(y) for y in re.findall(r'(?: cy="| d="M[\d.]+ )([^hmHV" ]+)', page([report]))]
    assert len(heights) > 8 and all(0 <= y <= 260 for y in heights)
    assert ("FAIL" in printed([report])) == (error != 0)


def test_a_failure_is_shown_where_the_share_of_the_budget_is_no_number():
    report = Report("net", [check(error=63.0), check(tensor="lost", error=math.nan)])
    assert "✗ FAIL 1 of 2 lost" in Page(page([report])).row("numerics", "layers")
    assert re.search(r"^ net .* FAIL", printed([report, passing()]), re.M)


@pytest.mark.parametrize("reports", ALL)
def test_tables_fit_a_terminal(reports):
    text = printed(reports)
    assert all(len(line) <= 80 for line in text.splitlines())
    for report in reports:
        assert report.title in text


def test_table_of_one_net():
    text = printed([failing()], width=200)
    assert "vgg11: FAIL, 2 of 28 checks" in text
    assert re.search(r"gradients +2 fc\.bias +640 +320 +4 +64 u +FAIL", text)
    assert re.search(r"layers +2 conv2 +inf +inf +4 +64 u +FAIL", text)
    assert "FAIL numerics gradients fc.bias" in text and "FAIL structure layers conv2" in text
    assert "first divergence (numerics, gradients): layer1.0" in text and "runs/reproduction" in text
    assert re.search(r"layer1\.relu +ReLU +3 +1\.23", text) and re.search(r"pool +max-pool +1 +inf", text)
    text = printed([skipping()])
    assert re.search(r"^ steps +0 not judged +-", text, re.M)
    assert "not judged: numerics gradients: too slow" in text and "not judged: all of it: because" in text


def test_a_narrow_terminal_folds_names_and_not_numbers():
    long = check(level="gradients", tensor="features." * 9, error=1.23e-8, floor=4.56e-9, budget=1.68e-4)
    assert re.search(r"^ gradients +1 \S+ +1\.23e-08 +6\.15e-09 +4\.56e-09 +0\.000168 +u +PASS",
                     printed([Report("net", [long])], width=70), re.M)


def test_table_of_several_nets():
    text = printed([passing("a" * 27), failing(), skipping(), Report("nothing")])
    assert text.startswith("4 nets: 2 PASS, 1 FAIL, 1 not judged; levels not judged: 3")
    for level in LEVELS:
        assert len(re.findall(rf"\b{level}\b.*(?=\n ─)", text)) == 2  # in the head of a table each
    assert len(re.findall(r"^ a{27}( +12%)+ *$", text, re.M)) == 4
    assert text.count(" FAIL ") == 4  # two in the matrices, and their two lines
    rows = re.findall(r"^ nothing .*", text, re.M)
    assert len(rows) == 4 and not re.search(r"\d|PASS", "".join(rows))
    assert "not judged: anything (nothing)" in text
    assert "flips: 4 units at 2 branch points, in 1 of 4 nets" in text
    same = printed([skipping(f"net{i}") for i in range(4)])
    assert same.count("too slow") == 1 and "too slow (4 nets)" in same


def test_numbers():
    assert [number(x) for x in (0, 0.0, 1234.5, 1.23456e-9, 7, "text", None, math.inf, math.nan)] == [
        "0", "0", "1.23e+03", "1.23e-09", "7", "text", "inf", "inf", "inf"]
    assert [share(check(error=e)) for e in (0.0, 0.1, 32.0, 64.0, 96.0, math.inf)] == [
        "0%", "<1%", "50%", "100%", "1.5 times", "inf"]


@pytest.mark.parametrize("show", [table, page])
def test_no_report(show):
    with pytest.raises(UserError, match="no report"):
        show([])
