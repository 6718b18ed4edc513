"""Settings changed at run time: stored, audited, told, and read by every decision that begins afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.events import EventType
from scheduler_service.core.tuning import Configured, Origin, SettingValue, text_of, tuned
from scheduler_service.transactions.auditing import Caller, audit
from scheduler_service.transactions.consequences import tell
from scheduler_service.transactions.gathering import show_window
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import Lock, SettingOverride


@dataclass(frozen=True, slots=True)
class SettingChange:
    """The override of a setting before and after; None where there is none."""

    before: SettingOverride | None
    after: SettingOverride | None


async def set_setting(
    tx: Transaction, name: str, value: SettingValue, caller: Caller, configured: Configured, rules: DispatchRules
) -> SettingChange:
    """Changes a setting from now on. `configured` and `rules` are as they are without overrides."""
    return await _change(
        tx, name, SettingOverride(name, value, caller.actor, caller.reason, tx.now), caller, configured, rules, "SetSetting"
    )


async def reset_setting(
    tx: Transaction, name: str, caller: Caller, configured: Configured, rules: DispatchRules
) -> SettingChange:
    """Gives a setting back to the environment; one that is not changed stays as it is."""
    return await _change(tx, name, None, caller, configured, rules, "ResetSetting")


async def _change(
    tx: Transaction,
    name: str,
    after: SettingOverride | None,
    caller: Caller,
    configured: Configured,
    rules: DispatchRules,
    method: str,
) -> SettingChange:
    # As every override: what a tick claims after the answer goes by the new value.
    await tx.leadership(Lock.UPDATE)
    operator = await tx.operator_settings()
    before = operator.overrides.get(name)
    values = operator.values
    if after is None:
        await tx.delete_setting_override(name)
        values.pop(name, None)
    else:
        await tx.save_setting_override(after)
        values[name] = after.value
    await show_window(tx, operator, tuned(rules, values))
    was, is_ = _shown(before, configured), _shown(after, configured)
    await audit(tx, method, name, caller, was, is_)
    if was != is_:
        tell(
            tx,
            EventType.SETTING_CHANGED,
            {
                "name": name,
                "reason": caller.reason,
                "actor": caller.actor,
                "value": is_["value"],
                "previous_value": was["value"],
                "origin": is_["origin"],
            },
        )
    return SettingChange(before, after)


def _shown(override: SettingOverride | None, configured: Configured) -> dict[str, str]:
    if override is None:
        return {"value": text_of(configured.value), "origin": configured.origin.value}
    return {"value": text_of(override.value), "origin": Origin.OVERRIDE.value}
