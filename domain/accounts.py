"""Accounts and queues appear and change by SetQuota."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain import budgets
from domain.commands import SetQuota
from domain.facts import QuotaSet
from domain.pool import rights
from domain.quota import Account, Queue, depth
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.turn import Turn

MAX_ACCOUNTS: Final = 20_000
MAX_QUEUES: Final = 20_000
MAX_DEPTH: Final = 16


# --- decide ---------------------------------------------------------------------------------------


def set_quota(turn: Turn, command: SetQuota, at: int) -> None:
    cell = turn.cell
    account = cell.accounts.get(command.account)
    parent = cell.accounts.get(command.parent) if command.parent is not None else None
    if command.parent is not None and parent is None:
        raise Refused("unknown_account", "parent", f"no account {command.parent!r} is known")
    if depth(parent) >= MAX_DEPTH:
        raise Refused("too_deep", "parent", f"the tree has at most {MAX_DEPTH} levels")
    above = parent
    while above is not None:
        if above is account:
            raise Refused("not_a_tree", "parent", "an account cannot be its own ancestor")
        above = above.parent
    if account is None and len(cell.accounts) >= MAX_ACCOUNTS:
        raise Refused("too_many_accounts", "account", f"a cell has at most {MAX_ACCOUNTS}")
    _check_queues(cell, command)
    rights.check_quotas(cell, command)
    turn.emit(QuotaSet(at))


def _check_queues(cell: Cell, command: SetQuota) -> None:
    names = {q.queue for q in command.queues}
    for name in sorted(names):
        queue = cell.queues.get(name)
        if queue is not None and queue.account.id != command.account:
            raise Refused("queue_taken", "queues", f"queue {name!r} is another account's")
    account = cell.accounts.get(command.account)
    dropped = [q for n, q in sorted(account.queues.items()) if n not in names] if account else []
    for queue in dropped:
        if queue.waiting or any(queue.usage.values()) or _named(cell, queue.id):
            raise Refused("queue_in_use", "queues", f"queue {queue.id!r} has jobs")
    if len(cell.queues) + len(names) > MAX_QUEUES:
        raise Refused("too_many_queues", "queues", f"a cell has at most {MAX_QUEUES} queues")


def _named(cell: Cell, queue: str) -> bool:
    return any(s.queue.id == queue for s in cell.shapes.values())


# --- evolve ---------------------------------------------------------------------------------------


def apply_set(cell: Cell, fact: QuotaSet) -> None:
    command = cell.command(fact.command, SetQuota)
    account = cell.accounts.get(command.account)
    if account is None:
        account = cell.accounts[command.account] = Account(command.account, cell.rates)
    before = account.parent
    account.set(command, cell.accounts[command.parent] if command.parent else None, cell.now_ms)
    account.budgets = budgets.make(account, command.budgets, cell.now_ms)
    rights.apply_quotas(cell, command)
    names = {q.queue for q in command.queues}
    for name in [n for n in account.queues if n not in names]:
        cell.left(cell.queues.pop(name))
        del account.queues[name]
    for spec in command.queues:
        queue = cell.queues.get(spec.queue)
        if queue is None:
            queue = Queue(spec.queue, cell.next_queue, account, spec.weight, False)
            cell.next_queue += 1
            cell.queues[queue.id] = account.queues[queue.id] = queue
        queue.weight = spec.weight
        queue.strict = spec.order == "strict"
        cell.touch(queue)
    cell.rebuild_quota()
    if cell.policies:
        cell.rulebook.accounts_changed()
    for changed in (account, before, account.parent):
        if changed is not None:
            cell.touch(changed)
