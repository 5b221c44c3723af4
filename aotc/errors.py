"""The exceptions a user can meet: each is one clear sentence with the place and the remedy."""

from __future__ import annotations


class AotcError(Exception):
    """Base of every error that aotc raises on purpose; the command line prints it without a
    traceback.

    ``where`` names the file, graph node and operator as far as they are known, ``remedy`` says
    what the user can do about it.
    """

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        self.message = message
        self.where = where
        self.remedy = remedy
        super().__init__(message)

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  remedy: {self.remedy}" if self.remedy else text


class ModelError(AotcError):
    """The model file is damaged, contradictory, or not ONNX."""


class UnsupportedError(AotcError):
    """The model is valid but uses something that aotc does not compile."""


class UsageError(AotcError):
    """A flag or an argument does not fit the model or the machine."""


class VerifyError(AotcError):
    """An internal invariant of one of the IRs is broken: a defect in aotc, not in the model."""
