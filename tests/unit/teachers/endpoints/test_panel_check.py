"""`rarealert panel check`: one line a teacher, and a failing exit where one does not answer."""

import yaml
from endpoint_kit import KEY, teacher
from fault_proxy import Fault

from rarealert.teachers.roster import check_panel


def test_each_teacher_gets_a_line_with_latency_validity_and_cost(replay, tmp_path):
    good, revoked = replay(), replay(fault=lambda n, _: Fault(401))
    specs = [teacher(good, "good").spec, teacher(revoked, "revoked").spec]
    listed = {"teachers": [spec.model_dump() for spec in specs]}
    (tmp_path / "panel.yaml").write_text(yaml.safe_dump(listed))
    table, whole = check_panel("panel.yaml", tmp_path, tmp_path / "data")
    head, first, second = table.splitlines()
    assert head.split() == ["teacher", "seconds", "tokens", "US", "dollars", "answer"]
    name, seconds, tokens, cost, verdict, *_ = first.split()
    assert (name, verdict) == ("good", "valid,")
    assert float(seconds) > 0
    assert int(tokens.replace(",", "")) > 300
    assert float(cost) > 0
    assert "refused the key in TEST_KEY (401)" in second
    assert not whole
    assert KEY not in table
    assert len(good.seen) == len(revoked.seen) == 1, "one case each"
