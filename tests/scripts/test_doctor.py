"""Promises of `unskew doctor`: it tries things, and says what to do about what fails."""

import json

import pytest
import torch

from unskew.scripts import doctor, doctor_checks


def test_here_it_works(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the tests run, all that is needed works, and every finding that does not has advice."""
    assert doctor.main(["--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["works"] is True
    findings = {finding["name"]: finding for finding in told["findings"]}
    assert {"python", "packages", "device", "dtype fp32", "8-bit AdamW", "disk", "memory"} <= set(
        findings
    )
    assert all(f["state"] == "works" for f in findings.values() if f["needed"])
    assert all(f["advice"] for f in findings.values() if f["state"] != "works")
    assert "[demo]" in findings and "[dev]" not in findings


def test_what_fails_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that cannot multiply, a package too old and a full disk are each named."""

    def broken(device: torch.device, dtype: torch.dtype) -> None:
        raise RuntimeError("no kernel image is available\nfurther lines")

    usage = doctor_checks.shutil._ntuple_diskusage(10, 9, 1)  # type: ignore[attr-defined]
    installed = doctor_checks.metadata.version
    monkeypatch.setattr(doctor_checks, "_multiply", broken)
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(
        doctor_checks.metadata, "version", lambda name: "0.1" if name == "peft" else installed(name)
    )
    monkeypatch.setattr(doctor_checks, "bitsandbytes", lambda device: ())
    assert doctor.main(["--quick"]) == 1
    said = capsys.readouterr().out
    assert "no kernel image is available" in said and "further lines" not in said
    assert "install the PyTorch that fits this machine" in said
    assert "-> pip install 'peft>=0.21'" in said
    assert "0.0 GiB free here" in said and "give each program an --out" in said
    assert said.endswith("Unskew does not work here\n")


def test_a_compiler_that_is_missing_is_told() -> None:
    """Where compiling fails, doctor says what to install instead of ending."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function: function)
        assert doctor_checks.compiling(torch.device("cpu")).state == "works"
        patch.setattr(torch, "compile", lambda function: 1 / 0)
        failed = doctor_checks.compiling(torch.device("cpu"))
    assert failed.state == "fails" and "apt install g++" in failed.advice
