"""Names that become folders cannot leave them, and no address in a declaration holds a password."""

from __future__ import annotations

import pytest
from workspace import edit, make_workspace, write

from flows.declarations.problems import DeclarationError
from flows.declarations.workspace import Workspace

OUTSIDE = ["../../outside", "..", "/etc", "a/b", "a\\b", ".hidden", "A", "a b", "a;b", "a$b", "-a", "a--b", "", "é"]


@pytest.mark.parametrize("name", [*OUTSIDE, "x" * 81])
def test_a_base_cannot_have_a_name_that_is_no_folder(name, tmp_path):
    root = make_workspace(tmp_path, papers=1, bases=1)
    edit(root, "params/bases.yaml", "constant-0:", f"{name!r}:")
    with pytest.raises(DeclarationError, match=r"params/bases.yaml:2: .*is no valid name here; expected lower-case"):
        _ = Workspace.load(root).bases


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_data_set_cannot_have_a_name_that_is_no_folder(name, tmp_path):
    root = make_workspace(tmp_path, papers=1)
    write(root, "params/data.yaml", f"{name!r}: {{}}\n")
    assert any("is no valid name here" in problem.message for problem in Workspace.load(root).problems())


def test_an_address_with_a_password_is_refused_without_repeating_it(tmp_path):
    root = make_workspace(tmp_path, papers=1)
    edit(root, "params/toy-0/paper.yaml", "cites: Section 1", "cites: see https://me:hunter2hunter2@example.org/paper")
    (problem,) = [each for each in Workspace.load(root).problems() if "password" in each.message]
    assert problem.where == "claims[0].cites"
    assert problem.line
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize("text", ["https://example.org/@me", "https://example.org:80/a@b", "a: b@c", "mail a:b@c.org"])
def test_other_addresses_are_left_alone(text, tmp_path):
    root = make_workspace(tmp_path, papers=1)
    edit(root, "params/toy-0/paper.yaml", "cites: Section 1", f"cites: {text!r}")
    assert not any("password" in problem.message for problem in Workspace.load(root).problems())
