"""Choosing cells: the mark `cells` in a test file, and `-m` on the command line."""

import pytest

BOTH = {"compressions": "32bit 16bit", "data": "docvqa vqav2"}


def collected(result):
    return [line.partition("[")[2].rstrip("]") for line in result.outlines if "::" in line]


def test_the_mark_restricts_each_axis_and_marks_add_up(project):
    project.pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.cells(models=["mine"], compressions=["16bit"])

        def test_cells(run):
            pass

        @pytest.mark.cells(datasets=["vqav2"])
        def test_fewer(run):
            pass

        @pytest.mark.cells(datasets=["vqav2"])
        def test_dataset(dataset):
            pass
        """
    )
    result = project.pytest("--collect-only", "-q", **BOTH)
    assert sorted(collected(result)) == [
        "mine_16bit-docvqa",
        "mine_16bit-vqav2",
        "mine_16bit-vqav2",
        "vqav2",
    ]


WRONG = {
    "models=['mien']": "unknown model 'mien'. Did you mean 'mine'?",
    "compressions=['33bit']": "unknown compression '33bit'. Did you mean '32bit'?",
    "datasets=['docvqaa']": "unknown dataset 'docvqaa'. Did you mean 'docvqa'?",
    "model=['mine']": "takes models=[...], compressions=[...] and datasets=[...], got ['model']",
    "'mine'": "takes models=[...], compressions=[...] and datasets=[...], got ('mine',)",
    "models='mine'": "expected models=['mine'], a list",
}


def test_a_wrong_mark_is_one_error_with_the_name_that_was_meant(project):
    for number, mark in enumerate(WRONG):
        (project.path / f"test_{number}.py").write_text(
            f"import pytest\n\n@pytest.mark.cells({mark})\ndef test_it(run):\n    pass\n"
        )
    result = project.pytest()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=len(WRONG))
    for number, message in enumerate(WRONG.values()):
        assert f"test_{number}.py::test_it: " in result.stdout.str()
        assert message in result.stdout.str()
    assert "Traceback" not in result.stdout.str()
    assert ".py:" not in result.stdout.str().replace(".py::", "")


CONFTEST = """
def pytest_configure(config):
    config.addinivalue_line("markers", "slow: a user's own")
    config.addinivalue_line("markers", "level(n): a user's own")
"""


def test_a_name_after_m_that_no_mark_has_is_a_usage_error(project):
    project.pytester.makepyfile("def test_it(run): pass")
    result = project.pytest("-m", "docvqaa and not benchmark")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.re_match_lines(["ERROR: -m: unknown mark 'docvqaa'. Did you mean 'docvqa'?.*"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ("docvqa and not slow", ["mine_32bit-docvqa"]),
        ("not (docvqa or vqav2)", []),
        ("not benchmark", ["mine_32bit-docvqa"]),
        ("level(n=1)", []),
    ],
)
def test_marks_of_data_sets_of_plugins_and_of_the_user_go_together(project, expression, selected):
    project.pytester.makeconftest(CONFTEST)
    project.pytester.makepyfile("def test_it(run): pass")
    result = project.pytest("--collect-only", "-q", "-m", expression)
    assert collected(result) == selected
    assert result.ret == (pytest.ExitCode.OK if selected else pytest.ExitCode.NO_TESTS_COLLECTED)
