"""Libraries print no bars and reports, unless the user asks for them."""

import sys

import datasets
import pytest
from huggingface_hub import constants
from transformers.utils import logging

from efficientbert.train.cli.quiet import quiet_bars, settle_output


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_and_reports_are_off_unless_asked_for(terminal, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    environment = {"TRANSFORMERS_VERBOSITY": "info"}
    settle_output(environment)
    assert environment["TRANSFORMERS_VERBOSITY"] == "info"
    assert environment["HF_DATASETS_DISABLE_PROGRESS_BARS"] == "1"
    assert ("HF_HUB_DISABLE_PROGRESS_BARS" in environment) != terminal  # downloads are shown on terminals


@pytest.mark.parametrize("terminal", [True, False])
def test_functions_keep_bars_off_while_they_run(terminal, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    before = datasets.are_progress_bars_disabled(), logging.is_progress_bar_enabled()
    datasets.enable_progress_bars()
    logging.enable_progress_bar()
    with quiet_bars():
        assert datasets.are_progress_bars_disabled() and logging.is_progress_bar_enabled() == terminal
    assert not datasets.are_progress_bars_disabled() and logging.is_progress_bar_enabled()
    if before[0]:
        datasets.disable_progress_bars()
    if not before[1]:
        logging.disable_progress_bar()
