"""Options that cannot be met: exit code 4 and one line, before anything is loaded."""

import json

import pytest

CASES = {
    "--model qwen3": "unknown model 'qwen3'. Did you mean 'qwen2'?",
    "--model mine=": "'mine=': expected NAME or NAME=FOLDER_OR_ID for a model",
    "--model mine=./chekpoint": "no checkpoint './chekpoint': it is no folder here",
    "--model mine={path}/nowhere": "nowhere/config.json cannot be read (FileNotFoundError",
    "--model mine={path}/other": "no adapter for architecture 'LlamaForCausalLM'",
    "--model mine={good} --model mine={good}": "model 'mine' is named 2 times",
    "--compression 4bits": "unknown compression '4bits'. Did you mean '4bit'?",
    "--compression 4bit --compression 4bit": "compression '4bit' is named 2 times",
    "--data docvq": "unknown data set 'docvq'. Did you mean 'docvqa'?",
    "--data docvqa=": "'docvqa=': expected NAME or NAME=FOLDER_OR_ID for a data set",
    "--data docvq={path}": "unknown data set 'docvq'. Did you mean 'docvqa'?",
    "--limit 0": "--limit must be at least 1, got 0",
    "--batch-size 0": "--batch-size must be at least 1, got 0",
    "--limit 3 --baseline-update": "a baseline is written from all samples: leave --limit out",
    "--baseline-of qwen2 --baseline-update": "--baseline-of compares only",
    "--baseline-of qwen2 --baseline-new": "--baseline-of compares only",
}


@pytest.mark.parametrize("options", CASES)
def test_one_line_says_what_is_wrong(project, checkpoint, options):
    other = project.path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    project.pytester.makepyfile("def test_it(run): pass")
    result = project.bare(*options.format(path=project.path, good=checkpoint).split())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line]
    assert line.startswith("ERROR: ")
    assert CASES[options] in line


@pytest.mark.parametrize("options", ["--tier nonsense", "--limit many", "--batch-size x"])
def test_so_does_the_parser(project, options):
    result = project.bare(*options.split())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    option, value = options.split()
    result.stderr.re_match_lines([rf".*error: argument {option}: invalid .*'{value}'.*"])
    assert "Traceback" not in result.stderr.str()
