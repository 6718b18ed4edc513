"""The rpcs about settings at run time, and the audit log of all overrides."""

from __future__ import annotations

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.core.tuning import SettingValue
from scheduler_service.rpc.calls import Calls, Context, caller_of
from scheduler_service.rpc.conversions import audit_message, setting_message
from scheduler_service.rpc.validation import ACTOR_MAX_CHARS, KEY_MAX_CHARS, VALUE_MAX_CHARS, Checker, page_token
from scheduler_service.transactions.auditing import Caller
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import AuditFilter, SettingOverride
from scheduler_service.transactions.tuning import reset_setting, set_setting
from service_runtime.settings import SettingsError


class SettingCalls(Calls):
    """ListSettings, SetSetting, ResetSetting and ListAuditEntries."""

    async def ListSettings(self, request: pb.ListSettingsRequest, context: Context) -> pb.ListSettingsResponse:
        configured = self._configuration.configured()

        async def work(tx: Transaction) -> pb.ListSettingsResponse:
            overrides = (await tx.operator_settings()).overrides
            return pb.ListSettingsResponse(settings=[self._message(name, overrides.get(name)) for name in sorted(configured)])

        return await self._read(work)

    async def SetSetting(self, request: pb.SetSettingRequest, context: Context) -> pb.SetSettingResponse:
        check = Checker()
        name = check.setting("name", request.name)
        value = self._value(check, name, check.text("value", request.value, VALUE_MAX_CHARS, required=True))
        caller = Caller(caller_of(context), check.reason(request.reason), check.request_id(request.request_id))
        check.done()

        async def work(tx: Transaction) -> pb.SetSettingResponse:
            configured = self._configuration.configured()[name]
            change = await set_setting(tx, name, value, caller, configured, self._rules)
            return pb.SetSettingResponse(before=self._message(name, change.before), after=self._message(name, change.after))

        response = await self._write("SetSetting", request, work, pb.SetSettingResponse)
        self._wake()
        return response

    async def ResetSetting(self, request: pb.ResetSettingRequest, context: Context) -> pb.ResetSettingResponse:
        check = Checker()
        name = check.setting("name", request.name)
        caller = Caller(caller_of(context), check.reason(request.reason), check.request_id(request.request_id))
        check.done()

        async def work(tx: Transaction) -> pb.ResetSettingResponse:
            change = await reset_setting(tx, name, caller, self._configuration.configured()[name], self._rules)
            return pb.ResetSettingResponse(before=self._message(name, change.before), after=self._message(name, change.after))

        response = await self._write("ResetSetting", request, work, pb.ResetSettingResponse)
        self._wake()
        return response

    def _message(self, name: str, override: SettingOverride | None) -> pb.Setting:
        return setting_message(name, self._configuration.configured()[name], override)

    def _value(self, check: Checker, name: str, text: str) -> SettingValue:
        """The value; notes what is wrong with it in the words that the environment's would get."""
        if check.wrong_so_far == 0:
            try:
                return self._configuration.value_of(name, text)
            except SettingsError as error:
                check.wrong("value", f"will not do: {error}")
        return text

    async def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, context: Context) -> pb.ListAuditEntriesResponse:
        check = Checker()
        size = check.page_size(request.page_size)
        chosen = AuditFilter(
            check.overriding_rpc("method", request.method),
            check.text("actor", request.actor, ACTOR_MAX_CHARS),
            check.text("target", request.target, KEY_MAX_CHARS),
            check.moment("start_time", request.start_time if request.HasField("start_time") else None),
            check.moment("end_time", request.end_time if request.HasField("end_time") else None),
        )
        # Not the times: a program may well ask for the last two hours again and again.
        scope = repr(("audit", chosen.method, chosen.actor, chosen.target))
        before = check.page_key(request.page_token, scope)
        check.done()
        found = await self._read(lambda tx: tx.audit_entries(chosen, before, size + 1))
        page = found[:size]
        return pb.ListAuditEntriesResponse(
            entries=[audit_message(entry) for entry in page],
            next_page_token=page_token(page[-1].id, scope) if len(found) > size else "",
        )
