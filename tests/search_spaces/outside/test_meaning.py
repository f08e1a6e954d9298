"""A space of a file is the same while it says the same, whatever its layout."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from torch import nn

from search_spaces.base import find_space
from search_spaces.outside.load import changes
from search_spaces.outside.meaning import CODES

FILE = """
    import torch.nn as nn
    import torch.nn.functional as F
    from helpers import block

    WIDTHS = [4, 8]

    def other(x):
        return x

    def build(trial):
        "One hidden layer."
        return block(trial.suggest_categorical("width", WIDTHS))
"""
HELPERS = """
    from torch import nn

    def block(width):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with the files of a space; codes are kept beside them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CODES, "place", lambda: tmp_path / "spaces")
    write("nets.py", FILE)
    write("helpers.py", HELPERS)
    return tmp_path


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(textwrap.dedent(text))


def code(spec: str = "nets.py:build") -> str:
    return find_space(spec).code


@pytest.mark.parametrize(
    "now",
    [
        {"nets.py": FILE + "\n    # a note\n"},
        {"nets.py": FILE.replace("One hidden layer.", "Whatever.").replace("WIDTHS = [4, 8]", "WIDTHS=[4,\n    8]")},
        {
            "nets.py": FILE.replace("return x", "return x + 1"),
            "helpers.py": HELPERS + "\n\n    def unused():\n        pass\n",
        },
        {"nets.py": FILE.replace("    import torch.nn.functional as F\n", "")},
        {  # the helper moves into the file
            "nets.py": FILE.replace("import torch.nn as nn", "from torch import nn").replace(
                "    from helpers import block\n", HELPERS.replace("    from torch import nn\n", "")
            )
        },
        {  # and into another file
            "nets.py": FILE.replace("from helpers", "from parts"),
            "parts.py": HELPERS,
        },
        {"nets.py": FILE + '\n    if __name__ == "__main__":\n        print(build)\n'},
    ],
)
def test_what_does_not_change_the_networks_changes_no_key(now: dict[str, str]) -> None:
    before = code()
    for name, text in now.items():
        write(name, text)
    assert code() == before
    assert changes("nets.py:build", before) == ""


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"nets.py": FILE.replace("[4, 8]", "[4, 9]")}, "WIDTHS changed"),
        ({"helpers.py": HELPERS.replace("ReLU", "Tanh")}, "block changed"),
        ({"helpers.py": HELPERS.replace("from torch import nn", "from torchnets import nn")}, "import nn gone"),
        ({"nets.py": FILE + "\n    import torch\n    torch.manual_seed(0)\n"}, "(what runs at once), import torch new"),
        ({"nets.py": FILE + "\n    build.kind = 3\n"}, "build changed"),
    ],
)
def test_what_may_change_the_networks_is_named(now: dict[str, str], said: str) -> None:
    before = code()
    write("torchnets.py", "from torch import nn\n")
    for name, text in now.items():
        write(name, text)
    assert code() != before
    assert said in changes("nets.py:build", before)


def test_a_file_that_says_again_what_it_said_has_its_old_code() -> None:
    before = code()
    write("helpers.py", HELPERS.replace("ReLU", "Tanh"))
    between = code()
    write("helpers.py", "\n# as it was\n" + textwrap.dedent(HELPERS))
    assert code() == before != between


def test_a_folder_of_code_beside_the_file_counts() -> None:
    write("nets.py", FILE.replace("from helpers", "from parts.blocks"))
    write("parts/__init__.py", "")
    write("parts/blocks.py", HELPERS)
    before, first = code(), find_space("nets.py:build")
    write("parts/blocks.py", "# a note\n" + textwrap.dedent(HELPERS))
    assert code() == before
    write("parts/blocks.py", HELPERS.replace("ReLU", "Sigmoid"))
    assert code() != before
    for space, activation in ((find_space("nets.py:build"), nn.Sigmoid), (first, nn.ReLU)):  # it is loaded anew
        network = space.parse('{"width":4}').build((1, 8, 8), 10)
        assert any(isinstance(layer, activation) for layer in network.modules())


def test_what_is_found_by_registration_or_by_inheritance_counts() -> None:
    text = """
        from torch import nn
        KINDS = {}
        def kind(made):
            KINDS[made.__name__] = made
            return made
        class Base(nn.Sequential):
            pass
        @kind
        def small():
            return 4
        class Wide(Base):
            width = 8
        def build(trial):
            width = KINDS[trial.suggest_categorical("kind", sorted(KINDS))]() + Base.__subclasses__()[0].width
            return Base(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))
    """
    write("nets.py", text)
    before = code()
    write("nets.py", text.replace("return 4", "return 5"))
    assert code() != before
    write("nets.py", text.replace("width = 8", "width = 9"))
    assert code() != before


@pytest.mark.parametrize(
    "imported", ["from .layers import block", "from . import layers\nblock = layers.block", "from .layers import *"]
)
def test_relative_imports_of_a_folder_are_followed(imported: str) -> None:
    write("nets.py", "from models import resnet\ndef build(trial):\n    return resnet.made(trial)\n")
    write("models/__init__.py", "")
    write("models/resnet.py", f"{imported}\ndef made(trial):\n    return block(trial.suggest_int('width', 4, 8))\n")
    write("models/layers.py", HELPERS)
    before = code()
    write("models/layers.py", HELPERS.replace("ReLU", "Tanh"))
    assert code() != before


@pytest.mark.parametrize(
    "registered",
    [
        "from kinds import KINDS\ndef wide():\n    return 4\nKINDS['wide'] = wide\n",
        "from kinds import kind\n@kind\ndef wide():\n    return 4\n",
        "from kinds import Kind\nclass Wide(Kind):\n    width = 4\n    def __new__(cls):\n        return 4\n",
    ],
)
@pytest.mark.parametrize("imported", ["import wide", "import parts.wide"])
def test_a_file_that_is_imported_for_what_it_registers_counts(imported: str, registered: str) -> None:
    kinds = """
        KINDS = {}
        def kind(made):
            KINDS[made.__name__] = made
            return made
        class Kind:
            def __init_subclass__(cls):
                KINDS[cls.__name__] = cls
    """
    text = """
        from torch import nn
        from kinds import KINDS
        def build(trial):
            width = KINDS[trial.suggest_categorical("kind", sorted(KINDS))]()
            return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))
    """
    place = imported.removeprefix("import ").replace(".", "/") + ".py"
    write("kinds.py", kinds)
    write("parts/__init__.py", "")
    write("nets.py", f"{imported}\n{textwrap.dedent(text)}")
    write(place, registered)
    before = code()
    write(place, "# a note\n" + registered)
    assert code() == before
    write(place, registered.replace("return 4", "return 5"))
    assert code() != before


@pytest.mark.parametrize(
    ("first", "second"), [("WIDTHS = [4]", "WIDTHS = [8]"), ("WIDTHS += [8]\n    WIDTHS += [8]", "WIDTHS += [8]")]
)
def test_the_order_and_the_number_of_statements_count(first: str, second: str) -> None:
    """Where they are of one name; both orders, as either may be that of their digests."""
    write("nets.py", FILE.replace("WIDTHS = [4, 8]", f"WIDTHS = [4]\n    {first}\n    {second}"))
    before = code()
    write("nets.py", FILE.replace("WIDTHS = [4, 8]", f"WIDTHS = [4]\n    {second}\n    {first.splitlines()[0]}"))
    assert code() != before


def test_what_only_the_main_program_imports_changes_no_key() -> None:
    write("draw.py", "print('drawing')\n")
    before = code()
    write("nets.py", FILE + '\n    if __name__ == "__main__":\n        import draw\n')
    assert code() == before


def test_what_is_reached_by_name_counts_with_all_files() -> None:
    text = FILE.replace("block(trial", 'globals()["block"](trial')
    write("nets.py", text)
    before = code()
    write("nets.py", text.replace("return x", "return x + 1"))
    assert code() != before


def test_an_nni_file_counts_by_what_it_holds() -> None:
    write("nets.py", "from torch import nn\ndef build(params):\n    return nn.Linear(params['n'], 10)\n")
    write("space.json", '{"n": {"_type": "choice", "_value": [4, 8]}}')
    before = code("space.json+nets.py:build")
    write("space.json", '{\n  "n": {"_value": [4, 8], "_type": "choice"}\n}')
    assert code("space.json+nets.py:build") == before
    write("space.json", '{"n": {"_type": "choice", "_value": [4, 9]}}')
    assert code("space.json+nets.py:build") != before
    assert changes("space.json+nets.py:build", before) == "space.json changed"


def test_where_nothing_can_be_kept_every_byte_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CODES, "place", lambda: folder / "nets.py" / "spaces")  # below a file
    before = code()
    assert code() == before
    write("nets.py", FILE + "\n    # a note\n")
    assert code() != before


def test_plus_signs_in_names_part_nothing(folder: Path) -> None:
    for name in ("c++ nets", "a.json+b"):
        (folder / name).mkdir()
        for file in ("nets.py", "helpers.py"):
            (folder / name / file).write_text((folder / file).read_text())
        assert find_space(f"{name}/nets.py:build").name == f"{name}/nets.py:build"
    (folder / "c++ nets/q+.json").write_text('{"n": {"_type": "choice", "_value": [4, 8]}}')
    (folder / "c++ nets/json.py").write_text("from torch import nn\ndef f(p):\n    return nn.Linear(p['n'], 2)\n")
    space = find_space("c++ nets/q+.json+c++ nets/json.py:f")
    assert space.size == 2
