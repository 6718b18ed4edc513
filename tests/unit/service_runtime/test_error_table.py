"""Every public error has its status."""

from __future__ import annotations

import inspect

import grpc

from service_runtime import errors
from service_runtime.grpc_errors import STATUS_CODES, status_code


def test_every_public_error_class_has_a_row() -> None:
    classes = {c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.ServiceError)}
    assert classes - {errors.ServiceError} == set(STATUS_CODES)


def test_a_subclass_is_what_its_base_is() -> None:
    class Special(errors.NotFound):
        pass

    assert status_code(Special("x", reason="X")) is grpc.StatusCode.NOT_FOUND
    assert status_code(errors.ServiceError("x", reason="X")) is grpc.StatusCode.INTERNAL
