"""Libraries print no bars and reports, unless the user asks for them."""

import sys

import pytest

from efficientbert.train.cli.quiet import settle_output


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_and_reports_are_off_unless_asked_for(terminal, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    environment = {"TRANSFORMERS_VERBOSITY": "info"}
    settle_output(environment)
    assert environment["TRANSFORMERS_VERBOSITY"] == "info"
    assert environment["HF_DATASETS_DISABLE_PROGRESS_BARS"] == "1"
    assert ("HF_HUB_DISABLE_PROGRESS_BARS" in environment) != terminal  # downloads are shown on terminals
