"""The tables agree: every implemented operation has a handler, every refusal an S3 code."""

from __future__ import annotations

import inspect

from astra.errors import RefusalCode
from gateway.s3api.errors import ERRORS
from gateway.s3api.handlers import HANDLERS
from gateway.s3api.operations import OPERATIONS
from gateway.s3api.refusals import s3_code


def test_handlers_are_exactly_the_implemented_operations() -> None:
    assert set(HANDLERS) == {op.name for op in OPERATIONS if op.implemented}


def test_handlers_are_coroutine_functions_of_one_request() -> None:
    for name, handler in HANDLERS.items():
        assert inspect.iscoroutinefunction(handler), name
        assert len(inspect.signature(handler).parameters) == 1, name


def test_refusals_every_code_has_a_row_in_the_error_table() -> None:
    for code in RefusalCode:
        assert s3_code(code) in ERRORS, code
