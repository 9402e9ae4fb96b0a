"""A registered split is read whole or refused with the row to fix."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.errors import BadInputError
from rarealert.splits.parts import read_registered

IDS = ["a", "b", "c"]
GOOD = "case_id,part\na,train\nb,valid\nc,test\n"


def written(folder, content):
    path = folder / "split.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_parts_come_in_the_order_asked_and_unknown_rows_are_counted(tmp_path):
    path = written(
        tmp_path, "\ufeffpart,note,case_id\r\ntest,x,c\r\nvalid,,b\r\ntrain,,a\r\ntest,,zz\r\n"
    )
    found = read_registered(path, IDS)
    assert found.parts == ["train", "valid", "test"]
    assert found.absent == 1
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no column case_id"),
        ("case_id,fold\na,train\n", "no column part"),
        (GOOD.replace("valid", "dev"), "line 3: part must be one of train, valid, test"),
        (GOOD + "a,test\n", "line 5: case a has two rows"),
        (GOOD + ",test\n", "line 5: case_id is empty"),
        (GOOD + "d\n", "line 5: part must be one of"),
        (GOOD.replace("c,test\n", ""), "gives no part to 1 of 3 cases, among them c"),
        (GOOD.encode("utf-16"), "no CSV in UTF-8|no column"),
        (b'case_id,part\n"a,train\n', "no CSV"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, says):
    with pytest.raises(BadInputError, match=says):
        read_registered(written(tmp_path, content), IDS)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(BadInputError, match=r"split\.assign"):
        read_registered(tmp_path / "none.csv", IDS)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = written(tmp_path_factory.mktemp("r"), content)
    with pytest.raises(BadInputError):
        read_registered(path, IDS)
