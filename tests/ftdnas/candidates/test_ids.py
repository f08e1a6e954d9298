from __future__ import annotations

import hashlib

import pytest

from ftdnas.candidates.ids import resolved, short_ids


def test_ids_are_as_long_as_all_of_them_need() -> None:
    names = [f"convnet:width={number}" for number in range(3)]
    ids = short_ids(names)
    assert ids == {name: hashlib.sha256(name.encode()).hexdigest()[:4] for name in names}
    many = short_ids(f"convnet:width={number}" for number in range(2000))
    assert len(set(many.values())) == 2000
    assert {len(letters) for letters in many.values()} != {4}
    assert len({len(letters) for letters in many.values()}) == 1
    assert short_ids([]) == {}


def test_an_id_is_found_by_as_many_letters_as_tell_it_apart() -> None:
    names = [f"convnet:width={number}" for number in range(2000)]
    ids = short_ids(names)
    assert resolved(ids[names[7]], names, "demo") == names[7]
    assert resolved(hashlib.sha256(names[7].encode()).hexdigest(), names, "demo") == names[7]
    assert resolved("convnet:", names, "demo") == "convnet:"
    with pytest.raises(LookupError, match="no candidate of demo has the id"):
        resolved("0" * 20, names, "demo")
    beginnings = [letters[:4] for letters in ids.values()]
    twice = next(letters for letters in beginnings if beginnings.count(letters) > 1)
    with pytest.raises(LookupError, match="give more letters"):
        resolved(twice, names, "demo")
